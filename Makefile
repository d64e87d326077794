# The commands that a day with finwheel needs. `make help` lists them.
#
# The first run on a fresh Debian machine installs what is missing (scripts/setup.sh); it needs root for that, and
# the demo and the tests on real interfaces need root too, for they make network namespaces of their own.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test model sim strangers goodput build check bench mutants fuzz floods image test-image clean-rigs

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

# The night's run: `make sim FOR=8h` for a time, `make sim SEED=1 SEEDS=1000` for certain seeds. Stops at the first that
# fails and prints the command that replays it.
SEEDS ?= 100000
sim: ## Simulate the whole dataplane from a fresh seed on: SEEDS=100000, or FOR=8h.
	@scripts/setup.sh build
	cargo build --release --bin finwheel
	$(TARGET)/release/finwheel sim --jobs $$(nproc) --seeds $(SEEDS) $(if $(SEED),--seed $(SEED)) $(if $(FOR),--for $(FOR))

strangers: ## 100 MB both ways at every rate of loss, as server and as client (root; up to an hour).
	@scripts/setup.sh test
	FINWHEEL_STRANGERS=full cargo test --test veth -- --nocapture --test-threads=1 bulk

goodput: ## Measure uploads beside Linux's over the same line, and write docs/goodput.md (root; minutes).
	@scripts/setup.sh test
	FINWHEEL_GOODPUT=$(CURDIR)/docs/goodput.md cargo test --test veth -- --nocapture --test-threads=1 goodput

build: ## Build a release: target/release/finwheel.
	@scripts/setup.sh build
	cargo build --release --bin finwheel

check: ## Format, lints and documentation, all without a warning.
	@scripts/setup.sh build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps

# QUICK=1: short turns and small populations, the same keys in under three minutes; docs/benchmarks.md is left alone.
bench: ## Measure the engine, and finwheel beside nginx; writes docs/benchmarks.md (root; QUICK=1 for a short run).
	@scripts/setup.sh bench
	@rm -rf $(TARGET)/bench/parts
	cargo bench --bench report
	cargo bench --bench peers -- --out $(TARGET)/bench $(if $(filter-out 0,$(QUICK)),--quick,--document docs/benchmarks.md)

mutants: ## Try the tests on deliberate faults; an hour.
	@scripts/setup.sh build
	@scripts/mutants.sh

# FLOODS=syn,ack,bursts: only these profiles, only this pace (evenly, bursts).
floods: ## Flood a serving finwheel with each of trafgen's profiles, and judge what its clients see (root; minutes).
	@scripts/setup.sh test
	FINWHEEL_FLOODS=$(or $(FLOODS),full) cargo test --release --test watch -- --nocapture --test-threads=1 floods

fuzz: ## Fuzz from fresh seeds: make fuzz TARGET=ingress TIME=600 (seconds).
	@scripts/setup.sh build
	@scripts/fuzz.sh $(FUZZ_TARGET) $(or $(TIME),600)

image: ## Build the container image, with Docker or with buildah.
	@scripts/setup.sh image
	@scripts/image.sh build

test-image: ## Run the image between two namespaces and close 1,000 connections against it (root).
	@scripts/setup.sh image
	@scripts/image.sh test

clean-rigs: ## Remove namespaces that a killed demo or test left behind (root).
	@scripts/clean-rigs.sh
