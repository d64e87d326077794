# The commands that a day with finwheel needs. `make help` lists them.
#
# The first run on a fresh Debian machine installs what is missing (scripts/setup.sh); it needs root for that, and
# the demo and the tests on real interfaces need root too, for they make network namespaces of their own.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test model build check bench mutants fuzz clean-rigs

# A freshly installed cargo is not on every PATH yet; tools that setup does not install lie beside the build.
export PATH := $(CURDIR)/target/tools/bin:$(PATH):$(HOME)/.cargo/bin
# `make fuzz TARGET=…` names a fuzz target; where cargo builds is another thing.
FUZZ_TARGET := $(TARGET)
override TARGET := $(or $(CARGO_TARGET_DIR),target)

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build a release and show it at work between two network namespaces (root).
	@scripts/setup.sh demo
	cargo build --release --bin finwheel
	$(TARGET)/release/finwheel demo

test: ## Run all tests; those on real interfaces need root and skip without.
	@scripts/setup.sh test
	@scripts/test.sh

# Not in parallel: each of the four keeps millions of situations in memory, about 1 GB.
model: ## Model-check the transition table at larger bounds than `make test` does (minutes).
	@scripts/setup.sh build
	FINWHEEL_MODEL_BOUND=2,1,2 cargo test --test model -- --nocapture --test-threads=1 in_order
	FINWHEEL_MODEL_BOUND=1,1,2 cargo test --test model -- --nocapture --test-threads=1 broken

build: ## Build a release: target/release/finwheel.
	@scripts/setup.sh build
	cargo build --release --bin finwheel

check: ## Format, lints and documentation, all without a warning.
	@scripts/setup.sh build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps

bench: ## Run the benches.
	@scripts/setup.sh build
	cargo bench

mutants: ## Try the tests on deliberate faults; half an hour.
	@scripts/setup.sh build
	@scripts/mutants.sh

fuzz: ## Fuzz with libFuzzer: make fuzz TARGET=ingress TIME=600 (seconds; a C++ compiler).
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh $(FUZZ_TARGET) $(or $(TIME),600)

clean-rigs: ## Remove namespaces that a killed demo or test left behind (root).
	@scripts/clean-rigs.sh
