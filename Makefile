# Each line is a command that one can type. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup setup-light demo test test-pure test-light test-apiserver test-trainer e2e long outside gitops attack faults mutate lint format docs site release audit crds lock cluster-up cluster-down clean bench
CLUSTER ?= embedded
SKIP ?=
REGISTRY ?=
KEY ?=
COUNT ?= 20000
PY := .venv/bin/python

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv from the lock files (7 GB; needs Python 3.11 or newer)
	@dev/bootstrap.sh

setup-light: ## The same without torch: enough for all but training (2 GB)
	@dev/bootstrap.sh light

demo: setup ## From nothing to a first fine-tuned model (CLUSTER=embedded|current|kind)
	@$(PY) -m hone_dev demo --cluster $(CLUSTER)

test: setup ## Everything that CI runs (skip a tier by name: SKIP=e2e)
	@$(PY) -m hone_dev.campaigns.tiers $(if $(SKIP),--skip $(SKIP))

test-pure: ## Only the tests without I/O
test-apiserver: ## Only the tests against a real etcd and kube-apiserver (CLUSTER=embedded|current|kind)
test-trainer: ## Only the tests that train small models on the CPU
test-pure test-apiserver test-trainer: setup
	@$(PY) -m hone_dev.campaigns.tiers --only $(@:test-%=%)

test-light: setup-light ## The tests without I/O that `make setup-light` is enough for
	@$(PY) -m hone_dev.campaigns.tiers --only light

e2e: setup ## The end-to-end tier on the embedded cluster
	@$(PY) -m hone_dev.campaigns.tiers --only e2e

long: setup ## Long tests that `make test` leaves out: whole pipelines on real pods, vLLM on two ranks
	@$(PY) -m hone_dev.campaigns.tiers --only long

outside: setup ## Every case of lists that others maintain: model families, chat templates, rights, fields, shapes, listings
	@$(PY) -m hone_dev.campaigns.tiers --only outside

gitops: setup ## What docs/guides/gitops.md says, by Argo CD and Flux themselves; compiles both once, a quarter of an hour
	@$(PY) -m hone_dev.campaigns.tiers --only gitops

attack: setup ## Every attack input against the running parts; prints how many were tried and repelled, by area
	@$(PY) -m hone_dev.campaigns.attack

faults: setup ## Operator and trainer under every fault, an hour or two; writes the table of docs/reliability.md
	@$(PY) -m hone_dev faults --write

mutate: setup ## Damaged data files against every reader, a larger campaign than the tests run (COUNT=20000)
	@$(PY) -m hone_dev.campaigns.mutations --count $(COUNT)

lint: setup ## Style, types, import contracts, drift of generated files
	@$(PY) -m hone_dev.campaigns.tiers --only lint

format: setup ## Format the Python code
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format -q .

docs: setup-light ## Serve the documentation on http://localhost:8000, rebuilt at each change
	@.venv/bin/zensical serve

site: setup-light ## Build the documentation in site/, as files that need no other server
	@$(PY) -m hone_dev.generate.site

release: setup ## Wheel, images, chart, manifests, pages and lists of parts in dist/; published only with REGISTRY=host (KEY=file signs)
	@$(PY) -m hone_dev release $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(KEY),--key $(KEY))

audit: setup ## Linters of others on image, chart, code, workflows and licences; dev/hone_dev/release/audit.yaml says what stays, and why
	@$(PY) -m hone_dev audit

crds: setup ## Generate what is generated: CRDs, API reference, chart values, dashboard, Argo CD patch, failure codes, model sizes, commands and tables of hone convert in the docs
	@$(PY) -m hone_api.generate && $(PY) -m hone_dev.chart.generate && $(PY) -m hone_dev.generate.dashboards && $(PY) -m hone_dev.generate.argocd && $(PY) -m hone_dev.generate.troubleshooting && $(PY) -m hone_dev.generate.models_and_gpus && $(PY) -m hone_dev.generate.cli_reference && $(PY) -m hone_dev.generate.convert_tables

lock: setup ## Lock dependencies by version and hash
	@dev/lock.sh

cluster-up: setup ## Bring the embedded cluster up
	@$(PY) -m hone_dev cluster up

cluster-down: setup ## Take it down; nothing is left behind but caches
	@$(PY) -m hone_dev cluster down

clean: setup ## Remove the caches: programs, images and models, tens of GB; the next run makes them again
	@$(PY) -m hone_dev cluster clean

bench: setup ## Benchmarks; they print ratios against a reference in the same run
	@$(PY) bench/trainer_overhead.py && $(PY) bench/operator_scale.py && $(PY) bench/dataset.py && $(PY) bench/gpu_throughput.py
