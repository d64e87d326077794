#!/usr/bin/env bash
# Runs one fuzz target for a time with libFuzzer, which finds by itself what reaches new code.
#
#   scripts/fuzz.sh TARGET [SECONDS]       (targets: the tests of tests/fuzz/main.rs; default 600)
#
# libFuzzer comes with bolero's crate; building it takes a C++ compiler (scripts/setup.sh fuzz) and a few minutes, into a
# target directory of its own. New entries that reach new code are collected in target/fuzz/TARGET/corpus; a failing input
# is left in target/fuzz/TARGET/crashes and ends the run. One that is worth keeping goes to
# tests/fuzz/__fuzz__/TARGET/corpus under a name that says what it is.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${1:?usage: scripts/fuzz.sh TARGET [SECONDS]}
seconds=${2:-600}
kept=tests/fuzz/__fuzz__/$target/corpus
if [ ! -d "$kept" ]; then
    echo "fuzz: no target $target; there are: $(ls tests/fuzz/__fuzz__ | tr '\n' ' ')" >&2
    exit 2
fi

# cargo-bolero would instrument, and fail to link, every test of the package; its flags for this one alone.
export RUSTFLAGS="--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export BOLERO_FUZZER=libfuzzer
# With a target named, build scripts and macros are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
build=(cargo test --profile fuzz --target "$host" --target-dir "${CARGO_TARGET_DIR:-target}/fuzz-build" --test fuzz)
"${build[@]}" --no-run

work=${CARGO_TARGET_DIR:-target}/fuzz/$target
mkdir -p "$work/corpus" "$work/crashes"
work=$(realpath "$work")
export BOLERO_LIBFUZZER_ARGS="$work/corpus $PWD/$kept -artifact_prefix=$work/crashes/ -timeout=20 \
-max_total_time=$seconds -print_final_stats=1"
exec "${build[@]}" -- --exact --nocapture "$target"
