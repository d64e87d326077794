#!/usr/bin/env bash
# Runs all tests and closes with one line: N passed, N failed, N skipped. The exit code is 0 only when something ran
# and nothing failed.
#
# A test that cannot run here (no root, a tool is missing) prints a line that starts with "skipped: " and the reason,
# and returns; test runners take it for passed. This script finds those lines, counts them as skipped, not as passed,
# and shows the reasons. A test prints one such line at most.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
log=$target/tests.log
mkdir -p "$target"

# Sets passed, failed, skipped and the file `reasons` from the JUnit report of cargo-nextest.
with_nextest() {
    local report=$target/nextest/default/junit.xml
    rm -f "$report"
    cargo nextest run --no-fail-fast --status-level "${STATUS_LEVEL:-slow}" \
        --final-status-level fail || status=$?
    if [ ! -s "$report" ]; then
        echo "test: no report: the tests were not built, or did not start" >&2
        return
    fi
    local total bad
    total=$(grep -c '<testcase ' "$report" || true)
    bad=$(grep -cE '<(failure|error)[ >]' "$report" || true)
    # What a test wrote stands in its own lines of the report, XML-escaped.
    grep -E '^(.*<system-out>)?skipped: ' "$report" | sed 's/.*<system-out>//; s/<\/system-out>.*//' >"$reasons" || true
    failed=$((failed + bad))
    count_passed $((total - bad))
}

# The same from the output of cargo test, given its arguments.
with_cargo() {
    local ended=0
    # Building shows itself; what the tests say goes to the log and, if one fails, to the terminal.
    case " $* " in
        *" --doc "*) ;;
        *)
            cargo test --no-run || { status=$? && return; }
            echo "test: running; see $log" >&2
            ;;
    esac
    # Two at a time: more would only disturb the tests that measure time.
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-2} cargo test --quiet --no-fail-fast "$@" -- --show-output --format=pretty \
        >"$log" 2>&1 || ended=$?
    local ok bad
    ok=$(sum 1)
    bad=$(sum 2)
    [ "$ended" = 0 ] || { status=$ended && cat "$log"; }
    grep -E '^skipped: ' "$log" >"$reasons" || true
    failed=$((failed + bad))
    count_passed "$ok"
}

# Sum over the result lines of all test programs: 1 passed, 2 failed.
sum() {
    sed -nE 's/^test result: [a-zA-Z]+\. ([0-9]+) passed; ([0-9]+) failed.*/\1 \2/p' "$log" |
        awk -v column="$1" '{ n += $column } END { print n + 0 }'
}

count_passed() {
    local skips
    skips=$(wc -l <"$reasons")
    skipped=$((skipped + skips))
    passed=$((passed + $1 - skips))
    # Names of namespaces and interfaces carry a process id.
    sed -E 's/-[0-9]+-[0-9]+/-*/g' "$reasons" | sort | uniq -c | sed -E 's/^ *([0-9]+) skipped: (.*)/skipped \1: \2/'
}

passed=0 failed=0 skipped=0 status=0
reasons=$(mktemp)
trap 'rm -f "$reasons"' EXIT

if cargo nextest --version >/dev/null 2>&1; then
    with_nextest
    # nextest leaves the examples of the documentation to cargo.
    with_cargo --doc
else
    with_cargo
fi

if [ "$status" = 0 ] && { [ "$failed" != 0 ] || [ "$passed" = 0 ]; }; then
    status=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
