# Everyday commands; `make help` lists them. The first two are all a newcomer needs.
.DEFAULT_GOAL := help
.PHONY: demo test chaos mutants setup build fmt lint doc docs bench clean help

TARGET := $(or $(CARGO_TARGET_DIR),target)
# 1h30m is 1*3600+30*60+ 0.
SECONDS_OF_FOR = $(subst s,+,$(subst m,*60+,$(subst h,*3600+,$(or $(FOR),5m)))) +0

demo: setup ## start everything with sample data; FOR=30s ends it by itself, ARGS go to `foldd demo`
	cargo build
	@$(abspath $(TARGET))/debug/foldd demo $(if $(FOR),--for $(FOR)) $(ARGS)

test: setup ## everything that must hold: format, lints, documentation, tests
	@deploy/setup.sh pooler browser promtool validators
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	cargo test

chaos: setup ## let everything fail at once and count afterwards, for FOR=20m (else 5m); SEED=… replays a plan
	cargo build --example own_daemon
	$(if $(SEED),FOLDD_TEST_SEED=$(SEED)) FOLDD_CHAOS_SECONDS=$$(($(SECONDS_OF_FOR))) \
		cargo test --test it chaos::nothing -- --nocapture

mutants: setup ## plant bugs and see whether chaos sees each; ONLY=… one of them, SEED=… the plan
	RUSTFLAGS="--cfg foldd_mutants" CARGO_TARGET_DIR=$(abspath $(TARGET))/mutants cargo build --bins --example own_daemon
	$(if $(SEED),FOLDD_TEST_SEED=$(SEED)) FOLDD_ONLY=$(ONLY) \
		RUSTFLAGS="--cfg foldd_mutants" CARGO_TARGET_DIR=$(abspath $(TARGET))/mutants \
		cargo test --test it chaos::mutants -- --nocapture

setup: ## get what is missing: a C compiler and PostgreSQL's server programs
	@deploy/setup.sh

build: ## build the release binary, target/release/foldd
	cargo build --release

fmt: ## format the code
	cargo fmt

lint: ## let clippy read all of it, as `make test` does
	cargo clippy --all-targets -- -D warnings

doc: ## build the library's documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

docs: ## write the pages that come from the code: docs/metrics.md, docs/configuration.md
	FOLDD_WRITE_DOCS=1 cargo test --lib reference

bench: setup ## measure, each figure beside its baselines; ARGS go to it: ARGS='catch-up --scale 0.1'
	cargo bench $(if $(ARGS),-- $(ARGS))

clean: ## remove what was built
	cargo clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
