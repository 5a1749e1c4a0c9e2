# Prerequisites: Rust (rustup reads rust-toolchain.toml) and Go. Only a real node needs root.
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# Of the image: amd64 or arm64, in Docker's words, and the target that rustc knows it by.
ARCH ?= $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
MACHINE := $(if $(filter arm64,$(ARCH)),aarch64,x86_64)
STATIC := $(MACHINE)-unknown-linux-musl

# Tests on a real node need root, and then the program of the image.
NODE := $(if $(filter Linux0,$(shell uname -s)$(shell id -u)),image-program)

# Most of what the tests do is wait, so more of them run than there are cores.
export RUST_TEST_THREADS ?= 8

.PHONY: help
help: ## Lists the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: programs
programs: ## Builds the programs, tests and the demo.
	$(CARGO) build --locked --workspace --all-targets

.PHONY: build
build: programs ## Builds the programs, and the pinned Go tools that tests need.
	$(TARGET_DIR)/debug/controlplane build

.PHONY: image-program
image-program: ## Builds the program as the image has it: static, small; ARCH=arm64 for the other one.
	rustup target add $(STATIC)
	@set -x; env CC_$(subst -,_,$(STATIC))=$(MACHINE)-linux-gnu-gcc \
	  CARGO_TARGET_$$(echo $(STATIC) | tr a-z- A-Z_)_LINKER=$(MACHINE)-linux-gnu-gcc \
	  $(CARGO) build --locked --profile image --bin acrcred --target $(STATIC)

.PHONY: demo
demo: programs $(if $(findstring --node,$(ARGS)),image-program) ## Shows the whole job on this machine; ARGS=--once ends by itself, --node takes a real node.
	$(TARGET_DIR)/debug/examples/demo $(ARGS)

.PHONY: test
test: build $(NODE) ## Runs every test, unit to real control plane.
	@rm -f $(TARGET_DIR)/tmp/durations $(TARGET_DIR)/tmp/skipped
	$(CARGO) test --locked --workspace
	@echo 'The ten slowest tests on the control plane:'; sort -rn $(TARGET_DIR)/tmp/durations | head -10
	@if test -s $(TARGET_DIR)/tmp/skipped; then echo "Skipped: $$(wc -l < $(TARGET_DIR)/tmp/skipped) tests"; cat $(TARGET_DIR)/tmp/skipped; fi

.PHONY: unit
unit: ## Runs the tests that need no other program: a minute at most, once built.
	$(CARGO) test --locked --lib --bins

.PHONY: e2e
e2e: build ## Runs end-to-end tests on the real control plane; TEST=name for some.
	$(CARGO) test --locked --test e2e -- $(TEST)

.PHONY: test-node
test-node: build image-program ## Runs the tests on a real node; needs root and Debian; TEST=name for some.
	$(CARGO) test --locked --test node -- $(TEST)

.PHONY: test-azure
test-azure: ## Runs the core story against real Azure; docs/testing-against-azure.md says what it needs.
	$(CARGO) build --locked --bin acrcred --example test-azure
	@$(TARGET_DIR)/debug/examples/test-azure

.PHONY: fuzz
fuzz: ## Tries new hostile inputs on every parser; CASES=n for fewer or more.
	PROPTEST_CASES=$(or $(CASES),2000000) $(CARGO) test --locked --release --lib fuzz::

.PHONY: faults
faults: build ## Runs the faults of Azure and writes what was observed into docs/reliability.md.
	@rm -f $(TARGET_DIR)/tmp/faults
	$(CARGO) test --locked --test e2e -- faults:: --skip kubernetes_faults
	@page=docs/reliability.md; { sed '/<!-- faults -->/q' $$page; \
	  echo '| Hop | Fault | Reason | Calls in 10 minutes | Status writes | Recovered after |'; \
	  echo '|---|---|---|---|---|---|'; sort -u $(TARGET_DIR)/tmp/faults; \
	  sed -n '/<!-- end of faults -->/,$$p' $$page; } > $(TARGET_DIR)/tmp/page && cp $(TARGET_DIR)/tmp/page $$page

.PHONY: fmt
fmt: ## Formats the code.
	$(CARGO) fmt --all

.PHONY: lint
lint: ## Formatting and clippy, warnings denied.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

.PHONY: deny
deny: ## Licences, bans and sources of the dependencies (needs cargo-deny).
	$(CARGO) deny --locked check bans licenses sources

.PHONY: generate
generate: ## Writes the generated files anew; a test fails while they differ.
	UPDATE=1 $(CARGO) test --locked --test e2e manifests::
	UPDATE=1 $(CARGO) test --locked --test e2e chart::generated::
