#!/usr/bin/env bash
# Makes every fault of tests/mutants.list, one after the other, in a copy of the sources, and runs the tests against it:
# first the packet scripts, then the library's own. Writes docs/mutants.md, which says who caught what. The exit code is 0
# only when every fault was made, built, and caught. Slow: a build for each fault. Arguments: words; only faults with one
# of them in their line are tried, and the report is not written.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Builds of its own: cargo would take a mutant's for those of the sources that it was made from.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/mutants
# Each build is run once, for a second or two: it need not be optimized or have symbols.
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
mkdir -p "$CARGO_TARGET_DIR"
log=$CARGO_TARGET_DIR/mutants.log
report=$CARGO_TARGET_DIR/mutants.md
only=$(
    IFS='|'
    echo "$*"
)

(cd "$root" && tar -c --exclude=./target --exclude=./.git .) | tar -x -C "$copy"
cd "$copy"

# The first test, or script and line, that a log names as failed.
culprit() {
    sed -nE 's/^tests\/scripts\/([^:]+:[0-9]+):.*/\1/p; s/^test (.*) \.\.\. FAILED$/\1/p; s/^error: test failed.*(timed out).*/\1/p' "$log" |
        awk '/\.pkt:/ && !script { script = $0 } !first { first = $0 } END { print script ? script : first }'
}

# Runs tests; true when one failed. A mutant that loops is caught by the clock.
fails() {
    local status=0
    timeout 200 cargo test -j2 "$@" -- --test-threads=2 "${filter[@]}" >"$log" 2>&1 || status=$?
    [ "$status" = 0 ] && return 1
    if [ "$status" = 124 ]; then
        echo "test $* ran longer than 200 s ... FAILED" >>"$log"
    fi
    return 0
}

# Of the library's tests those of the engine.
filter=()
caught=0 by_scripts=0 total=0 bad=0
rows=""
while IFS= read -r line; do
    case $line in '' | '#'*) continue ;; esac
    if [ -n "$only" ] && ! grep -qE "$only" <<<"$line"; then continue; fi
    what=${line%% :: *}
    rest=${line#* :: }
    file=src/tcp/${rest%% :: *}
    expression=${rest#* :: }
    total=$((total + 1))
    sed -i "$expression" "$file"
    who="**nobody**"
    if cmp -s "$file" "$root/$file"; then
        who="**not made: the line has changed**"
    elif ! cargo test -j2 --test scripts --no-run >"$log" 2>&1; then
        who="**does not build**"
    elif fails --test scripts; then
        who="\`$(culprit)\`"
        by_scripts=$((by_scripts + 1))
        caught=$((caught + 1))
    else
        filter=(tcp:: shard::)
        if fails --lib; then
            who="\`$(culprit)\` (unit test)"
            caught=$((caught + 1))
        fi
        filter=()
    fi
    case $who in '**'*) bad=$((bad + 1)) ;; esac
    echo "$total: $what: $who" >&2
    rows+="| $what | \`$(basename "$file")\` | $who |"$'\n'
    cp "$root/$file" "$file"
done <"$root/tests/mutants.list"

{
    echo "# Mutants"
    echo
    echo "Deliberate faults in \`src/tcp\` (\`tests/mutants.list\`), each built and tested by itself: \`make mutants\`, which"
    echo "writes this file. $caught of $total were caught, $by_scripts of them by a packet script (\`tests/scripts\`, named with"
    echo "the line that failed first), the others by a unit test."
    echo
    echo "| fault | file | caught by |"
    echo "|---|---|---|"
    printf '%s' "$rows"
} >"$report"
if [ -z "$only" ]; then
    mkdir -p "$root/docs"
    cp "$report" "$root/docs/mutants.md"
fi
echo "$caught of $total caught"
[ "$bad" = 0 ] && [ "$total" -gt 0 ]
