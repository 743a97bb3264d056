# Run `make` to see what there is. Each target installs what it needs, or says what is missing.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

target := $(or $(CARGO_TARGET_DIR),target)
python := $(target)/python
requirements := tests/clients/requirements.txt
deny_version := 0.20.2
deny := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mig-agent/cargo-deny-$(deny_version)/bin/cargo-deny

.PHONY: help
help: ## What there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: rust ## The main job, on a fake driver and a simulated kubelet; needs nothing but Rust
	@cargo build --locked -p mig-agent -p fake-nvml -p demo
	@$(target)/debug/demo

.PHONY: test
test: rust $(python)/.complete ## All tests that need no cluster
	@NVML_HEADERS="$$(find $(CURDIR)/$(python) -name nvml.h | sort | paste -sd :)" cargo test --locked
	@$(MAKE) --no-print-directory fake-nvml
	@$(python)/bin/python tests/clients/run --library $(target)/fake-nvml/libnvidia-ml.so.1 --control $(target)/fake-nvml/fake-nvml tests/scenes/*.yaml

.PHONY: deaths
deaths: rust ## Kubelet and agent die by chance, simulated: those tests of make test alone (DEATH_SEED= repeats a run)
	@cargo test --locked -p mig-agent --test death_of_agent --test death_of_kubelet --test death_of_sockets

.PHONY: contract
contract: rust ## What NVML does, tried on a real library (LIBRARY=/path/libnvidia-ml.so.1 [GPU=0] [WRITABLE=1])
	@test -n "$(LIBRARY)" || { echo "say which library: make contract LIBRARY=/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1" >&2; exit 2; }
	@cargo build --locked --release -p contract --bin contract
	@$(target)/release/contract --library "$(LIBRARY)" --gpu "$(or $(GPU),0)" $(if $(filter-out 0,$(WRITABLE)),--writable)

.PHONY: e2e
e2e: rust ## The suite on a real Kubernetes (PROVIDER=local, kind or existing; needs root for local)
	@tests/e2e/run

.PHONY: image
image: ## The images mig-agent and fake-nvml, as archives in target/image/ (IMAGE=, FAKE_IMAGE=, TAG=, BUILDER=, RUNTIME=)
	@deploy/image/build

.PHONY: image-test
image-test: rust image ## The images looked into and run (needs root)
	@command -v runc >/dev/null || { echo "runc is missing (Debian: apt-get install runc)" >&2; exit 1; }
	@cargo test --locked -p image

.PHONY: image-reproducible
image-reproducible: ## Two builds of HEAD from two clean clones, compared (two whole builds: many minutes)
	@deploy/image/reproducible

.PHONY: chart
chart: rust ## The chart: by helm 3 and 4, and on a real API server (SNAPSHOTS=overwrite writes tests/chart/snapshots and deploy/)
	@tests/chart/apiserver cargo test --locked -p chart

.PHONY: bench
bench: rust ## Figures: ours, and NVIDIA's plugin beside it where Go is installed
	@tests/bench/run

.PHONY: fake-nvml
fake-nvml: rust ## The fake driver: libnvidia-ml.so.1 and its control command, in target/fake-nvml/
	@cargo build --locked --release -p fake-nvml
	@mkdir -p $(target)/fake-nvml
	@install -m 755 $(target)/release/libfake_nvml.so $(target)/fake-nvml/libnvidia-ml.so.1
	@install -m 755 $(target)/release/fake-nvml $(target)/fake-nvml/fake-nvml
	@echo "$(target)/fake-nvml/libnvidia-ml.so.1 and $(target)/fake-nvml/fake-nvml"

.PHONY: lint
lint: rust ## Format and clippy, as CI demands them
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: policy
policy: rust $(deny) ## What may be built in: licences, bans, sources (deny.toml; ADVISORIES=1: known faults too)
	@$(deny) --locked check licenses bans sources $(if $(filter-out 0,$(ADVISORIES)),advisories)

.PHONY: clean
clean: ## Removes everything that was built here
	@rm -rf $(target)

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs (1.95 or later)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C linker is missing: install gcc (Debian: apt-get install gcc libc6-dev)" >&2; exit 1; }

# NVIDIA's headers and other people's NVML clients, from PyPI.
$(python)/.complete: $(requirements)
	@command -v python3 >/dev/null || { echo "Python 3 is missing (Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	@python3 -m venv --clear $(python) || { echo "Python's venv is missing (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(python)/bin/pip install --quiet --disable-pip-version-check --requirement $(requirements)
	@touch $@

# Four minutes on two cores, once.
$(deny):
	@echo "building cargo-deny $(deny_version), once"
	@cargo install --quiet --locked --root $(abspath $(dir $@)..) --version $(deny_version) cargo-deny
