# `make` alone lists the targets. JavaScript runs through npm scripts, which put the project's Node
# first on the PATH. Variables of the command line (`make dev PORT=8800`) are in their environment.
# The lines of `dev` and `demo` must need no shell: Ctrl-C would end the shell, and make would report
# that as an error although the script ends well.

export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
NPM_RUN := npm run --silent

.DEFAULT_GOAL := help
.PHONY: help setup setup-test setup-bench build dev demo test bench fmt lint audit doc clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

setup: ## Install what building and running need: toolchain, node_modules/, .tools/
	@bash scripts/setup.sh

setup-test:
	@bash scripts/setup.sh test

setup-bench:
	@bash scripts/setup.sh bench

build: setup ## Build the Worker into build/
	@bash scripts/build.sh

dev: setup ## Run the gate before a small origin (ORIGIN=http://… for your own), show it at work, stay up until Ctrl-C
	@$(NPM_RUN) dev

demo: setup ## The same, but end after the tour; fails if the tour does not show what it should
	@$(NPM_RUN) demo

test: setup-test ## Everything that must pass
	@$(NPM_RUN) test

bench: setup-bench ## Throughput and latency; not part of `make test`
	@$(NPM_RUN) bench

fmt: setup ## Format the Rust code
	@cargo fmt

lint: setup ## Clippy, native and for wasm; circles of imports
	@$(NPM_RUN) cycles
	@cargo clippy --locked --all-targets -- -D warnings
	@cargo clippy --locked --target wasm32-unknown-unknown -- -D warnings

audit: ## Licences, advisories and sources of all crates (needs `cargo install cargo-deny`)
	@for crate in . tools/bindgen bench/rust-worker; do \
	  cargo deny --manifest-path $$crate/Cargo.toml --config deny.toml check || exit 1; done

doc: setup ## Build the crate's documentation into target/doc/
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

clean: ## Remove what was built and local state; keeps installed tools and .dev.vars
	@rm -rf build target .wrangler .bench
