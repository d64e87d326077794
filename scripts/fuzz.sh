#!/usr/bin/env bash
# Runs one fuzz target for a time, from fresh seeds.
#
#   scripts/fuzz.sh TARGET [SECONDS]       (targets: the tests of tests/fuzz/main.rs; default 600)
#
# Each round is the bounded run of `cargo test --test fuzz` with another seed, which is printed first: with it in
# FINWHEEL_FUZZ_SEED the same inputs come again. The first failure ends the run; the test says where the input was written.
# One that is worth keeping goes to tests/fuzz/__fuzz__/TARGET/corpus under a name that says what it is.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${1:?usage: scripts/fuzz.sh TARGET [SECONDS]}
seconds=${2:-600}
if [ ! -d "tests/fuzz/__fuzz__/$target/corpus" ]; then
    echo "fuzz: no target $target; there are: $(ls tests/fuzz/__fuzz__ | tr '\n' ' ')" >&2
    exit 2
fi

cargo test --test fuzz --no-run
export FINWHEEL_FUZZ_ROUNDS=${FINWHEEL_FUZZ_ROUNDS:-10}
rounds=0
SECONDS=0
while [ "$SECONDS" -lt "$seconds" ]; do
    export FINWHEEL_FUZZ_SEED=$((RANDOM << 30 | RANDOM << 15 | RANDOM))
    echo "fuzz: $target, seed $FINWHEEL_FUZZ_SEED"
    cargo test --quiet --test fuzz -- --exact "$target"
    rounds=$((rounds + 1))
done
echo "fuzz: $target, $rounds seeds without a failure in $SECONDS s"
