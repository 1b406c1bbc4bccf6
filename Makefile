# The front door: CI calls the same targets as people do.

.DEFAULT_GOAL := help
SHELL := /bin/bash -euo pipefail

# The one tool the tests use that neither apt nor the Rust toolchain brings.
NEXTEST_VERSION := 0.9.151
# For `make deny` and `make sbom`, which install them where they are missing.
DENY_VERSION := 0.20.2
CYCLONEDX_VERSION := 0.5.9
# Built without optimisation: they run for seconds.
need = command -v $(1) >/dev/null || CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo install --locked --quiet --version $(2) $(3) $(1)
# For `make run`, e.g. `make run ARGS="--devices 500 --mqtt-addr 127.0.0.1:0"`.
ARGS ?=
# For `make test`, e.g. `make test TESTS=session`: only tests whose names contain it.
TESTS ?=
# For `make image`.
SERVICE ?= ingest
SERVICES := ingest alerting status-tracker bridge device-sim fleet

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run the whole fleet in one process (ARGS="--devices 500"); with the bridge if KAFKA_BROKERS is set
	cargo run --locked -p fleet $(if $(KAFKA_BROKERS),,--no-default-features) -- up $(ARGS)

.PHONY: build
build: ## Build every program
	cargo build --locked --workspace --bins

.PHONY: test
test: test-tools test-collector build ## Run every test; installs what they need (TESTS=name for some)
	cargo nextest run --locked --workspace $(TESTS)
	cargo test --locked --workspace --doc

.PHONY: test-tools
test-tools: ## Install what the tests need: Mosquitto, PostgreSQL, Kafka, Chromium, Schemathesis, cargo-nextest
	@tests/install-tools $(NEXTEST_VERSION)

.PHONY: screenshots
screenshots: test-tools build ## Take the pictures in docs/screenshots anew, of a fleet that runs for two minutes
	cargo nextest run --locked -p fleet-tests --run-ignored only -E 'test(status::screenshots)'

.PHONY: collector
collector: ## Build the OpenTelemetry Collector (needs Go), once, and print where it is
	@tests/collector/build

# Without Go the tests that need it are skipped, and say so.
.PHONY: test-collector
test-collector:
	@if PATH=$$PATH:/usr/local/go/bin command -v go >/dev/null; then tests/collector/build >/dev/null; fi

.PHONY: lint
lint: ## Check formatting, lints and documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: fuzz
fuzz: ## Feed arbitrary and mutated input to all that reads it, ten minutes (ARGS="--budget 1h --seed 7")
	cargo build --locked -p fleet-fuzz -p status-tracker --bins
	target/debug/fleet-fuzz $(ARGS)

.PHONY: deny
deny: ## Check licences, bans and sources of the dependencies; advisories where their database is reachable
	@$(call need,cargo-deny,$(DENY_VERSION),--no-default-features)
	cargo deny --offline --locked check bans licenses sources
	@if timeout 60 cargo deny --locked fetch db >/dev/null 2>&1; then cargo deny --locked check advisories; \
	else echo "advisories are NOT checked: the RustSec database (github.com/rustsec/advisory-db) cannot be fetched from here"; fi

.PHONY: sbom
sbom: ## Write a bill of materials (CycloneDX 1.5, JSON) for every program, to target/sbom
	@$(call need,cargo-cyclonedx,$(CYCLONEDX_VERSION),)
	@tests/sbom target/sbom

.PHONY: image
image: ## Build the container image of SERVICE (default ingest)
	docker build --build-arg SERVICE=$(SERVICE) --tag mqtt-fleet/$(SERVICE):dev .

.PHONY: images
images: ## Build the container images of every program; they are compiled once
	for service in $(SERVICES); do docker build --build-arg SERVICE=$$service --tag mqtt-fleet/$$service:dev . || exit 1; done

.PHONY: image-rootfs
image-rootfs: ## Build the file tree of SERVICE's image without Docker, into target/rootfs (PROFILE=debug|release)
	tests/image/rootfs $(SERVICE) target/rootfs

.PHONY: image-test
image-test: ## Run SERVICE's file tree with no shell, as uid 65532, read-only
	SERVICE=$(SERVICE) tests/image/test

.PHONY: k8s
k8s: ## Render k8s/base from the chart
	k8s/render k8s/base

.PHONY: helm-test
helm-test: ## Check chart, manifests and Dockerfile: lint, schemas, unit tests, golden output, drift
	helm/test

.PHONY: helm-update
helm-update: ## Write what is generated from the chart: golden output, README, k8s/base
	UPDATE=1 helm/test

.PHONY: cluster-test
cluster-test: build ## Install, scale, upgrade, roll back and kill on a real Kubernetes; nothing may be missing (skipped without one)
	tests/cluster/run

.PHONY: kind-up
kind-up: images ## Create a kind cluster, load the images, install the chart, run helm test
	k8s/kind-up

.PHONY: kind-down
kind-down: ## Delete the kind cluster
	kind delete cluster --name mqtt-fleet

.PHONY: up
up: ## Start broker, PostgreSQL and services in containers
	docker compose up --build --detach

.PHONY: down
down: ## Stop the containers of `make up`
	docker compose down

.PHONY: ci
ci: lint test helm-test image-test ## What CI runs

# The benchmarks; `make bench` runs those that end within a quarter of an hour in all.
BENCHES := session ingest alerting status bridge sim tracing

.PHONY: bench
bench: bench-build bench-pure ## Measure everything, in less than 15 minutes: tables, and JSON in target/bench
	@tests/bench/run $(BENCHES)

.PHONY: bench-compare
bench-compare: bench-build ## Measure peers beside ours: rumqttc, mosquitto_sub, Paho for Go where there is Go
	@tests/bench/compare

.PHONY: bench-build
bench-build: test-tools kafka
	cargo build --locked --release --workspace --bins

.PHONY: bench-pure
bench-pure: ## Measure topic matching, a reading from JSON and packets from bytes (criterion)
	cargo bench --locked --workspace --bench pure -- $(ARGS)

# One benchmark builds itself and what it measures, and no more.
MEASURES_ingest := ingest
MEASURES_alerting := alerting
MEASURES_status := status-tracker
MEASURES_bridge := bridge
MEASURES_sim := device-sim
MEASURES_tracing := ingest device-sim
MEASURES_growth := ingest

.PHONY: kafka
kafka:
	@tests/install-kafka
bench-bridge: kafka

.PHONY: $(addprefix bench-,$(BENCHES) growth)
$(addprefix bench-,$(BENCHES) growth): bench-%: test-tools
	cargo build --locked --release --workspace $(addprefix --bin ,bench-$* $(MEASURES_$*))
	target/release/bench-$* $(ARGS)

bench-session: ## Measure receiving and acknowledging alone, beside other clients
bench-ingest: ## Measure ingest on SQLite and PostgreSQL beside the stores alone (ARGS="--readings 1000000")
bench-alerting: ## Measure alerting: rules, memory, and from reading to alert (ARGS="--seconds 60")
bench-status: ## Measure status-tracker with 100,000 devices: memory, and pages under load (ARGS="--devices 10000")
bench-bridge: ## Measure the bridge to a real Kafka beside a plain producer loop (ARGS="--readings 2000000")
bench-sim: ## Measure 15,000 simulated devices, beside rumqttc (ARGS="--devices 5000")
bench-tracing: ## Measure what tracing costs ingest and device-sim, off and at 1 % (ARGS="--runs 9")
bench-growth: ## Plot what a reading costs with more sessions and rows, and memory over 30 minutes (ARGS="--plots docs")

# For `make soak`.
SOAK ?= 10m

.PHONY: soak
soak: test-tools build ## Ten minutes of chaos with ingest killed at random, proven afterwards (SOAK=1h; target/soak.html)
	SOAK_DURATION=$(SOAK) SOAK_REPORT=$(CURDIR)/target/soak.html \
		cargo nextest run --locked --profile soak -p fleet --test soak --no-capture

.PHONY: test-bridge
test-bridge: ## Run the bridge's fault tests at full size: 500,000 readings, Kafka stopped for a minute
	@tests/install-tools $(NEXTEST_VERSION)
	cargo build --locked -p bridge
	BRIDGE_READINGS=500000 BRIDGE_STILL_SECONDS=60 cargo nextest run --locked -p fleet-tests \
		--no-capture -E 'test(/^bridge::(five|kafka)/)'
