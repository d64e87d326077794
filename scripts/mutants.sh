#!/usr/bin/env bash
# Makes faults of tests/mutants.list, one after the other, in a copy of the sources, and runs the tests against each: first
# the packet scripts, then the library's own. docs/mutants.md, which says who caught what and when, is written anew after
# each of them; faults that are not tried keep their row. The exit code is 0 only when every fault that was tried was made,
# built, and caught. Slow: a build for each fault.
#
#   mutants.sh            all faults
#   mutants.sh --rest     those that have no row in docs/mutants.md yet, or one that says they were not caught
#   mutants.sh WORD...    those with one of the words in their line
#
# FOR=480: no new fault after so many seconds.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
list=$root/tests/mutants.list
report=$root/docs/mutants.md
# Builds of its own: cargo would take a mutant's for those of the sources that it was made from.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/mutants
# Each build is run once, for a second or two: it need not be optimized or have symbols.
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
copy=$CARGO_TARGET_DIR/sources
log=$CARGO_TARGET_DIR/mutants.log
mkdir -p "$CARGO_TARGET_DIR"
exec 9>"$CARGO_TARGET_DIR/lock"
flock -n 9 || { echo "mutants: another run is under way in $CARGO_TARGET_DIR" >&2 && exit 1; }

# At one place, so that only what changed is compiled again.
rm -rf "$copy"
mkdir "$copy"
(cd "$root" && tar -c --exclude=./target --exclude=./.git .) | tar -x -m -C "$copy"
cd "$copy"

# The first test, or script and line, that a log names as failed.
culprit() {
    sed -nE 's/^tests\/scripts\/([^:]+:[0-9]+):.*/\1/p; s/^test (.*) \.\.\. FAILED$/\1/p; s/^error: test failed.*(timed out).*/\1/p' "$log" |
        awk '/\.pkt:/ && !script { script = $0 } !first { first = $0 } END { print script ? script : first }'
}

# Runs tests; true when one failed. A mutant that loops is caught by the clock.
fails() {
    local status=0
    timeout 200 cargo test -j2 "$@" 9>&- >"$log" 2>&1 || status=$?
    [ "$status" = 0 ] && return 1
    if [ "$status" = 124 ]; then
        echo "test cargo test $* ran longer than 200 s ... FAILED" >>"$log"
    fi
    return 0
}

# What stands before a row's verdict: the fault and its file.
head_of() {
    local rest=${1#* :: }
    echo "| ${1%% :: *} | \`${rest%% :: *}\` |"
}

# The row of a fault in the report, if it has one.
row_of() {
    grep -F -m1 "$(head_of "$1")" "$report"
}

# Makes one fault and sets `who`.
try() {
    local rest=${1#* :: }
    local file=src/tcp/${rest%% :: *}
    sed -i "${rest#* :: }" "$file"
    if cmp -s "$file" "$root/$file"; then
        who="**not made: the line has changed**"
    elif ! cargo test -j2 --test scripts --no-run 9>&- >"$log" 2>&1; then
        who="**does not build**"
    elif fails --test scripts -- --test-threads=2; then
        who="\`$(culprit)\`"
    # Of the library's tests those of the engine.
    elif fails --lib -- --test-threads=2 tcp:: shard::; then
        who="\`$(culprit)\` (unit test)"
    else
        who="**nobody**"
    fi
    cp "$root/$file" "$file"
}

# The report with the row of the fault $1 replaced by $2.
write_report() {
    local line row rows="" total=0 caught=0 by_unit=0 untried=0
    while IFS= read -r line; do
        total=$((total + 1))
        row=$(row_of "$line" || true)
        [ "$line" = "$1" ] && row=$2
        case $row in
            '') untried=$((untried + 1)) && row="$(head_of "$line") not tried yet | |" ;;
            *' not tried yet '*) untried=$((untried + 1)) ;;
            *'| **'*) ;;
            *'(unit test)'*) caught=$((caught + 1)) && by_unit=$((by_unit + 1)) ;;
            *) caught=$((caught + 1)) ;;
        esac
        rows+=$row$'\n'
    done < <(faults)
    {
        echo "# Mutants"
        echo
        echo "Deliberate faults in \`src/tcp\` (\`tests/mutants.list\`), each built and tested by itself: \`make mutants\`, which"
        echo "writes this file. $caught of $total were caught, $((caught - by_unit)) of them by a packet script (\`tests/scripts\`, named with"
        echo "the line that failed first), $by_unit by a unit test; $untried have not been tried yet. The last column says when; a"
        echo "fault may be tried by itself (\`scripts/mutants.sh WORD\`)."
        echo
        echo "| fault | file | caught by | tried |"
        echo "|---|---|---|---|"
        printf '%s' "$rows"
    } >"$log.md"
    cp "$log.md" "$report"
}

faults() {
    grep -vE '^(#|$)' "$list"
}

# Whether the fault $1 is asked for by the arguments behind it.
is_asked_for() {
    local line=$1
    shift
    case ${1:-} in
        '') return 0 ;;
        --rest) ! row_of "$line" | grep -qvE '\| \*\*|not tried yet' ;;
        *) (IFS='|' && grep -qE -- "$*" <<<"$line") ;;
    esac
}

tried=0 bad=0
while IFS= read -r line; do
    is_asked_for "$line" "$@" || continue
    if [ "$SECONDS" -ge "${FOR:-86400}" ]; then break; fi
    try "$line" </dev/null
    tried=$((tried + 1))
    case $who in '**'*) bad=$((bad + 1)) ;; esac
    echo "$tried: ${line%% :: *}: $who" >&2
    write_report "$line" "$(head_of "$line") $who | $(date -I) |"
done < <(faults)

echo "$((tried - bad)) of $tried caught"
[ "$bad" = 0 ] && [ "$tried" -gt 0 ]
