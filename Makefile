# Everything one does with this repository; CI runs only these.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help servers demo test check bench fuzz image lint

help: ## list the targets
	@sed -n -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

servers: ## get PostgreSQL (and 18 beside it), MariaDB, MySQL and nats-server, which test and bench start
	@scripts/get-servers

# Not the release build: that takes more than twice as long, and a shop does not need it.
demo: ## show it at work: a shop, PostgreSQL, NATS (ARGS="--seconds 20", ARGS=--mysql, ARGS=--mariadb)
	@scripts/get-servers $(if $(filter --mysql,$(ARGS)),mysql,$(if $(filter --mariadb,$(ARGS)),mariadb,postgres)) nats
	cargo build
	target/debug/figvine demo $(ARGS)

test: servers lint ## everything: format, lints, all tests
	cargo test --workspace --no-fail-fast

check: lint ## the quick part, without servers
	cargo test --workspace --lib
	cargo test --test tidy --test config --test model

lint:
	@cargo fmt --version >/dev/null 2>&1 || { echo "rustfmt is missing: rustup component add rustfmt" >&2; exit 1; }
	@cargo clippy --version >/dev/null 2>&1 || { echo "clippy is missing: rustup component add clippy" >&2; exit 1; }
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench: servers ## measure end to end (ARGS="--workload narrow10 --peers")
	cargo bench --bench end_to_end -- $(ARGS)

# Without a sanitizer, which all-safe Rust needs least, the stable toolchain does: coverage is an unstable flag of it.
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz: ## run every fuzz target for 60 seconds each (ARGS=-max_total_time=600)
	@cargo fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	@for dir in connectors/*/fuzz; do \
	  targets=$$(cd $$dir && cargo fuzz list --fuzz-dir .); \
	  for target in $$targets; do \
	    echo "$$dir: $$target"; \
	    (cd $$dir && cargo fuzz run --fuzz-dir . --sanitizer none $$target -- $(or $(ARGS),-max_total_time=60)); \
	  done; \
	done

image: ## build the container image
	@command -v docker >/dev/null || { echo "docker is missing: install it, or build the binary with cargo build --release" >&2; exit 1; }
	docker build -f docker/Dockerfile -t figvine .
