# `make test test-node` is everything that continuous integration runs; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600
CARGO ?= cargo
# All programs and all tests: one set of features, so that nothing is built twice.
FULL := --locked --features full

.PHONY: help test quick prerequisites tools fmt clippy deny check-closure charts guards build-tests cluster-api cluster-node test-cluster node-programs test-node fuzz soak soak-short bench bench-check crds

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | sort | expand -t 16

# Cheap checks come first; the test runner's summary comes last.
test: ## Everything that needs no node: checks, fuzzing, a short soak, all tests (15 minutes warm on 2 cores)
	@$(MAKE) prerequisites
	@$(MAKE) fmt check-closure deny
	@$(MAKE) tools charts cluster-api
	@$(MAKE) clippy
	@$(MAKE) build-tests
	@$(MAKE) guards
	@$(MAKE) fuzz
	@$(MAKE) soak-short
	$(CARGO) test $(FULL)

quick: fmt ## The checks of a minute: format, lints, unit tests, room edges
	$(CARGO) clippy $(FULL) --all-targets -- -D warnings
	$(CARGO) test $(FULL) --lib --test architecture

prerequisites: # Names what is missing
	@.ci/prerequisites

tools: # Clients and servers that others wrote, pinned
	tests/tools/install.sh

fmt: ## Check the format
	$(CARGO) fmt --check

# One line a feature set: each must build and be clean alone. The partial sets are the library alone, since tests and
# programs need all of it.
clippy: ## Lint each feature set
	$(CARGO) clippy --locked --quiet --lib --no-default-features -- -D warnings
	$(CARGO) clippy --locked --quiet --lib --no-default-features --features sidecar -- -D warnings
	$(CARGO) clippy --locked --quiet --lib --no-default-features --features api -- -D warnings
	$(CARGO) clippy --locked --quiet --bin toolgate -- -D warnings
	$(CARGO) clippy $(FULL),fuzz --quiet --all-targets -- -D warnings

deny: ## Check dependencies: bans, licences, sources
	@deny=$$(.ci/cargo-deny) && "$$deny" --all-features --locked check --hide-inclusion-graph --allow duplicate bans licenses sources

# The second half is the positive control: with the operator's features the same search finds them.
check-closure: ## Prove that the gateway's closure holds no Kubernetes client and no Kubernetes types
	@closure() { $(CARGO) tree --locked --edges normal,build --prefix none --format '{p}' "$$@" | cut -d' ' -f1 | sort -u; }; \
	kubernetes='^(kube|kube-.*|k8s-openapi.*|schemars.*)$$'; \
	if found=$$(closure --no-default-features --features sidecar | grep -E "$$kubernetes"); then \
	  echo "the gateway's closure holds:" $$found >&2; exit 1; fi; \
	closure --no-default-features --features api | grep -qE "$$kubernetes"; \
	echo "gateway closure: $$(closure --no-default-features --features sidecar | wc -l) crates, none of them Kubernetes"

charts: ## Check the charts and the example for clusters: schemas, scores, rights
	@.ci/charts

guards: ## Let an API server judge the chart's rights and admission policies
	$(CARGO) build $(FULL) --bin toolgate-operator
	@.ci/guards

build-tests: # Before anything runs, so that what does not compile fails early
	$(CARGO) test $(FULL) --no-run

# Kept in ~/.cache/toolgate-test. Go's own cache holds what is shared between the two.
cluster-api: ## Build etcd and Kubernetes for the tests against an API server, once (5 minutes on 2 idle cores)
	tests/cluster/up build api

cluster-node: ## Build what a node needs besides, once: containerd, runc, CoreDNS, CNI plugins
	tests/cluster/up build node

test-cluster: cluster-api ## The tests against a real API server alone
	$(CARGO) build $(FULL) --bins --examples
	$(CARGO) test $(FULL) --test cluster

# Our image holds the programs of everyday work; the shim is static there, as in the Containerfile. A target is named
# because the flag would else reach build scripts and procedural macros, which cannot be static.
node-programs:
	$(CARGO) build $(FULL) --bins
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --locked --no-default-features --features shim \
	  --bin toolgate-shim --target $$(uname -m)-unknown-linux-gnu

test-node: ## The tests on a real node: charts, pods, what fails (root; 10 minutes warm on 2 cores)
	@.ci/prerequisites node
	@.ci/charts helm >/dev/null
	@$(MAKE) cluster-node node-programs
	python3 tests/node/run.py $(FILES)

fuzz: ## Fuzz each target for FUZZ_SECONDS (60)
	fuzz/run $(FUZZ_SECONDS)

soak: ## Mixed traffic with misbehaving servers and edits for SOAK_SECONDS (600); SOAK_SEED repeats the edits of a run
	$(CARGO) build $(FULL) --bin toolgate
	python3 tests/soak/soak.py --toolgate $${CARGO_TARGET_DIR:-target}/debug/toolgate --seconds $(SOAK_SECONDS) \
	  $(addprefix --seed ,$(SOAK_SEED))

soak-short: # `cargo test` has built the program. Twice the time for edits: the machine also builds and fuzzes
	python3 tests/soak/soak.py --toolgate $${CARGO_TARGET_DIR:-target}/debug/toolgate --seconds 20 --grace 2 \
	  $(addprefix --seed ,$(SOAK_SEED))

bench: ## Measure the gateway beside its peers and the control plane at scale, and write benches/results
	python3 benches/hot_path.py run
	python3 benches/control_plane.py run

bench-check: ## Repeat a short run and compare its ratios with benches/results
	python3 benches/hot_path.py check

crds: ## Write crds/ and the schema of pod templates anew, and the chart's copies
	WRITE_CRDS=1 $(CARGO) test $(FULL) --quiet --lib in_the_repository
	cp crds/*.yaml charts/toolgate-crds/files/
