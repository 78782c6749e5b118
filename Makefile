# FerroLB's commands. `make demo` and `make test` are all one needs; they install what they need.
# As root, or as a user who may sudo: the lab makes network namespaces.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The tools of the user stay in reach of root: sudo alone would reset PATH.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo 'sudo --preserve-env=HOME,CARGO_HOME,RUSTUP_HOME,GOPATH,GOPROXY,GOFLAGS,XDG_CACHE_HOME,CI,KEEP,FERROLB_PROFILE env "PATH=$$PATH"')
KEEP ?=

# Debian packages: a container runtime, the pods' network plugins, and what the lab and its tests call.
PACKAGES := build-essential containerd runc containernetworking-plugins iproute2 nftables iptables conntrack tcpdump arping ndisc6 curl procps python3-pip shellcheck valgrind

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: ## Install the Debian packages the lab needs, where they are missing
	@missing=""; for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "==> installing$$missing"; \
	  $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	else echo "==> every Debian package needed is installed"; fi
	@for c in cargo go; do command -v $$c >/dev/null || { echo "$$c is missing: install Rust (rustup) and Go 1.25 or newer first"; exit 1; }; done

.PHONY: demo
demo: setup ## The main job on a real cluster, shown step by step (KEEP=1 leaves the cluster up)
	@echo "==> building the lab"
	cargo build --locked -p ferrolb-e2e --bins
	$(SUDO) env KEEP=$(KEEP) target/debug/demo

.PHONY: demo-istio
demo-istio: setup ## Istio's ingress gateway behind FerroLB, two walkthroughs step by step (KEEP=1 leaves the cluster up)
	@echo "==> building the lab"
	cargo build --locked -p ferrolb-e2e --bins
	$(SUDO) env KEEP=$(KEEP) target/debug/demo_istio

.PHONY: test
test: setup lint unit e2e ## What CI runs: formatting, clippy, unit and property tests, end-to-end tests

.PHONY: lint
lint: ## Formatting and clippy; warnings are errors
	@echo "==> formatting"
	cargo fmt --all --check
	@echo "==> clippy"
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@echo "==> scripts for people"
	shellcheck e2e/minikube/*.sh
	@echo "==> the pure crates know no runtime and no Kubernetes"
	@for c in ferrolb-config ferrolb-controller-core ferrolb-speaker-arbiter ferrolb-speaker-core ferrolb-speaker-members ferrolb-speaker-wire; do \
	  if cargo tree --locked -p $$c --edges normal --prefix none | grep -E '^(tokio|kube|k8s-openapi) '; then echo "$$c must not depend on these"; exit 1; fi; done

.PHONY: unit
unit: ## Unit and property tests, those on the wire included
	@echo "==> unit and property tests"
	cargo test --locked --workspace --no-run
	$(SUDO) cargo test --locked --workspace --exclude ferrolb-e2e
	$(SUDO) cargo test --locked -p ferrolb-e2e --lib --bins --test docs --test monitoring --test walkthrough

.PHONY: e2e
e2e: setup ## End-to-end tests on a real cluster in network namespaces
	@echo "==> end-to-end tests"
	cargo build --locked -p ferrolb-e2e --bins
	$(SUDO) cargo test --locked -p ferrolb-e2e --test chart --test cluster

.PHONY: e2e-istio
e2e-istio: setup ## The same with Istio in front of applications (compiles Istio once)
	@echo "==> end-to-end tests with Istio"
	cargo build --locked -p ferrolb-e2e --bins
	$(SUDO) cargo test --locked -p ferrolb-e2e --test istio

.PHONY: fuzz
fuzz: ## Fuzz every decoder for a minute each (needs a nightly toolchain and cargo-fuzz)
	@rustup toolchain list | grep -q nightly || { echo "fuzzing needs a nightly toolchain: rustup toolchain install nightly"; exit 1; }
	@command -v cargo-fuzz >/dev/null || { echo "fuzzing needs cargo-fuzz: cargo install cargo-fuzz"; exit 1; }
	for room in config config/api speaker/wire speaker/members; do (cd $$room && for t in $$(cargo +nightly fuzz list); do cargo +nightly fuzz run $$t -- -max_total_time=60; done); done

.PHONY: soak
soak: ## A million random steps of the controller's decisions against the model (SOAK_STEPS=, SOAK_SEED=)
	cargo test --locked --release -p ferrolb-controller-core --test decisions -- --ignored --nocapture soak

.PHONY: images images-offline
images: ## The three container images, with docker, podman or buildah (ENGINE=, IMAGE_FLAGS=, PREFIX=, VERSION=)
	image/build.sh
images-offline: ## The same without a registry: buildah, a builder made of Debian packages, this machine's Rust and crates
	@{ command -v buildah && command -v debootstrap; } >/dev/null || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends buildah debootstrap
	$(SUDO) image/build.sh --offline

# The tool writes one for every crate of the workspace; the program's is kept, without the names of this machine's folders.
.PHONY: sbom
sbom: ## What the program in the images is made of, as CycloneDX: target/images/ferrolb.cdx.json
	@command -v cargo-cyclonedx >/dev/null || cargo install --locked cargo-cyclonedx
	cargo cyclonedx --manifest-path image/Cargo.toml --format json --target x86_64-unknown-linux-gnu --no-build-deps
	@mkdir -p target/images && sed 's,file://$(CURDIR)/,,g' image/ferrolb-image.cdx.json >target/images/ferrolb.cdx.json
	@git ls-files --others --exclude-standard '*.cdx.json' | xargs rm -f
	@echo "==> target/images/ferrolb.cdx.json: $$(grep -c '"purl"' target/images/ferrolb.cdx.json) crates"

# Benches on the lab measure what images are made of, quick ones what tests run, which is built in a fraction of the time.
MEASURED := FERROLB_PROFILE=$(or $(FERROLB_PROFILE),$(if $(filter 1,$(QUICK)),release,dist))
# What was given on the command line; the later of two settings of a variable counts.
FAILOVER := $(MEASURED) $(if $(filter 1,$(QUICK)),NODES=3 ROUNDS=12 MOVES=7) $(foreach v,NODES ROUNDS MOVES SEED ON LAB KEEP MINUTES MILLICPU,$(if $($(v)),$(v)=$($(v))))
.PHONY: bench-failover soak-failover
bench-failover: setup ## How long clients are cut off when nodes are lost, beside MetalLB (QUICK=1, NODES=, ROUNDS=, ON=: docs/failover-bench.md)
	cargo build --locked -p ferrolb-e2e --bins && $(SUDO) env $(FAILOVER) target/debug/bench_failover run
soak-failover: setup ## Changes of owner without cause under full load (MINUTES=30, ON=)
	cargo build --locked -p ferrolb-e2e --bins && $(SUDO) env $(FAILOVER) target/debug/bench_failover soak

BENCH := $(MEASURED) $(foreach v,QUICK SERVICES NODES ON LAB KEEP,$(if $($(v)),$(v)=$($(v))))
.PHONY: bench-answers bench-instructions
bench-answers: setup ## How fast questions are answered, beside the kernel's own answers (QUICK=1: docs/performance.md)
	cargo build --locked -p ferrolb-e2e --bin bench_answers && $(SUDO) env QUICK=$(QUICK) target/debug/bench_answers
bench-instructions: setup ## The instructions an answer takes, against their bars (also part of `make unit`)
	cargo test --locked -p ferrolb-speaker-responder --test instructions

.PHONY: bench bench-core
bench: setup ## Many Services and answers, beside MetalLB, the API server alone and the kernel (QUICK=1, SERVICES=1,2000,10000, ON=: docs/performance.md)
	cargo build --locked -p ferrolb-e2e --bins && $(SUDO) env $(BENCH) target/debug/bench
bench-core: ## What the decisions of controller and speaker cost with 10 000 Services and 1 000 nodes
	cargo test --locked --release -p ferrolb-controller-core -p ferrolb-speaker-core --test large -- --ignored --nocapture

.PHONY: lab-up lab-down
lab-up: setup ## Raise the lab with three nodes
	cargo build --locked -p ferrolb-e2e --bins && $(SUDO) target/debug/lab up --nodes 3
lab-down: ## Take the lab down
	$(SUDO) target/debug/lab down
