# vpcnet: what can be done with a checkout. `make` alone lists it.
#
# Everything made lands in target/, and `cargo clean` removes it. Nothing is installed but missing packages
# (scripts/setup names each one first).

SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: lab
lab: ## a VPC on this machine: two nodes, forty pods, every packet path checked, all removed again (root)
	@scripts/lab-demo

.PHONY: build
build: ## the release binaries, side by side in target/vpcnet/
	@scripts/setup build
	@scripts/build

.PHONY: image
image: build ## the container image, without an engine: target/image/image.tar, with bills of materials and provenance (Debian)
	@scripts/setup image
	@scripts/image

.PHONY: image-test
image-test: ## loads the image into a containerd of its own and runs what is in it (root)
	@scripts/setup image-test
	@scripts/image-test

.PHONY: dist
dist: image ## what a release consists of, with checksums, in target/dist/
	@scripts/dist

.PHONY: test
test: ## every test there is, those with the lab and the built binaries too (root)
	@scripts/test

.PHONY: unit-test
unit-test: ## the tests that need no root, no lab and no release build
	@scripts/unit-test

.PHONY: e2e
e2e: ## the tests with a real Kubernetes: two nodes, a hundred pods, Services, DNS, faults (root)
	@scripts/e2e

.PHONY: kubernetes
kubernetes: ## Kubernetes for `vpcnet lab up --kubernetes`, into target/vpcnet/kubernetes/ (Go, 5 minutes from nothing)
	@scripts/kubernetes

.PHONY: fuzz
fuzz: ## everything that comes from outside, fuzzed and guided by coverage, VPCNET_FUZZ_SECONDS (60) for each target
	@scripts/fuzz

.PHONY: bench
bench: ## latency, memory, sizes and the burst, beside ptp and a floor program; writes target/bench/report.json (root)
	@scripts/bench

.PHONY: soak
soak: ## VPCNET_SOAK_MINUTES (60) of churn on two nodes under faults: no leak, no growth, no ADD that fails for nothing (root)
	@scripts/soak

.PHONY: lint
lint: ## formatting, clippy, documentation links, generated files, licences and bans of dependencies
	@scripts/lint

.PHONY: format
format: ## rustfmt over the workspace
	cargo fmt --all

.PHONY: generate
generate: ## regenerate the committed code of the protobuf services, docs/configuration.md and deploy/crds
	@scripts/generate

.PHONY: generate-check
generate-check: ## fail if the committed generated code is not what `make generate` makes
	@scripts/generate --check

.PHONY: manifest
manifest: ## deploy/aws-k8s-cni.yaml from the chart (builds helm, once: some minutes)
	@scripts/chart-check --write

.PHONY: chart-check
chart-check: ## the chart: lint, what it renders and refuses, its objects by Kubernetes' types, the plain manifest
	@scripts/chart-check

.PHONY: test-tools
test-tools: ## what the tests need besides Rust: cnitool in target/tools/, moto and boto3 in target/venv/
	@scripts/setup build test
