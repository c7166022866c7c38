# Triptych: the commands of README.
SHELL := /bin/bash
PYTHON := $(CURDIR)/target/venv/bin/python
BINARY := $(CURDIR)/target/debug/triptych
# The codec worker is a workspace of its own (archive/codec/Cargo.toml says why); its program lies beside the server's.
CODEC := --manifest-path archive/codec/Cargo.toml --ignore-rust-version --target-dir target
SEED ?= 1
SEEDS ?= $(SEED)

.PHONY: help run test check interop cluster demo bench sim chaos chaos-short fuzz golden fix

help:
	@echo "make run    build and start a single node on ./data"
	@echo "make test   everything that must hold (installs what it needs)"
	@echo "make demo   three nodes, real images, one killed, told in words"
	@echo "make bench  measure beside other archives (installs what it needs)"
	@echo "make sim    one simulated run: make sim SEED=3053; many: make sim SEEDS=0..500"
	@echo "make chaos  three processes under faults, checked: make chaos SEED=7 MINUTES=10 FAULTS=kill,pause; or KILLS=200, ALLKILLS=50"
	@echo "make fuzz   what reads bytes of strangers, under libFuzzer: make fuzz FUZZ=data_set SECONDS=600"
	@echo "make fix    format, and mend what clippy can mend"
	@echo "make golden rewrite the golden files; git diff is the review"

run:
	cargo build --release -p archive-server
	cargo build --release $(CODEC)
	target/release/triptych serve --data ./data

# One build for everything: with all targets, the binary and the tests share their dependencies.
test: | target
	tests/tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo build --workspace --all-targets
	TRIPTYCH_BIN=$(BINARY) cargo nextest run --workspace
	cargo fmt --manifest-path archive/codec/Cargo.toml --check
	cargo clippy $(CODEC) --all-targets -- -D warnings
	cargo build $(CODEC)
	cargo nextest run $(CODEC)
	cd tests/bench && $(PYTHON) -m pytest -q
	$(MAKE) interop cluster chaos-short

interop:
	cd tests/interop && TRIPTYCH_BIN=$(BINARY) $(PYTHON) -m pytest -q

cluster:
	cd tests/cluster && TRIPTYCH_BIN=$(BINARY) $(PYTHON) -m pytest -q

demo: | target
	tests/tools
	cargo build -p archive-server
	cargo build $(CODEC)
	TRIPTYCH_BIN=$(BINARY) PYTHON=$(PYTHON) $(PYTHON) tests/demo/demo

bench:
	tests/bench/run

sim:
	SIM_SEEDS=$(SEEDS) cargo nextest run -p triptych-sim --no-capture --run-ignored all chosen_seeds

chaos: | target
	tests/tools
	cargo build -p archive-server
	cargo build $(CODEC)
	$(PYTHON) tests/chaos/chaos.py --binary $(BINARY) --seed $(SEED) --seconds $(or $(SECONDS),$(shell echo $$(($(or $(MINUTES),10) * 60)))) \
	  $(if $(FAULTS),--faults $(FAULTS)) $(if $(KILLS),--kills $(KILLS)) $(if $(ALLKILLS),--allkills $(ALLKILLS)) $(if $(REPORT),--report $(REPORT))

# The checker against a fake cluster that breaks its promises, then a minute of faults; another schedule: CHAOS_SEED=n.
chaos-short:
	cd tests/chaos && TRIPTYCH_BIN=$(BINARY) $(PYTHON) -m pytest -q

# Needs no nightly toolchain: RUSTC_BOOTSTRAP lets the stable one use the sanitizer.
fuzz: | target
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz --version 0.13.2
	cd tests/fuzz && for each in $(or $(FUZZ),pdu association command_set data_set recode matching); do \
	  mkdir -p ../../target/fuzz/corpus/$$each; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . --target-dir ../../target/fuzz $$each ../../target/fuzz/corpus/$$each -- \
	    -max_total_time=$(or $(SECONDS),60) -timeout=5 -rss_limit_mb=512 -max_len=65536 || exit 1; \
	done

golden:
	GOLDEN=1 cargo nextest run --workspace bytes_of_a_segment the_statement_is_the_golden_one

fix:
	cargo fmt --all
	cargo fmt --manifest-path archive/codec/Cargo.toml
	cargo clippy --workspace --all-targets --fix --allow-dirty

target:
	mkdir -p target
