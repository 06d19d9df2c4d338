# Each line is a command that one can type. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo test mutate test-pure test-apiserver test-trainer e2e long attack lint format crds lock cluster-up cluster-down bench clean
CLUSTER ?= embedded
SKIP ?=
COUNT ?= 20000
PY := .venv/bin/python

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv from the lock files
	@dev/bootstrap.sh

demo: setup ## From nothing to a first fine-tuned model (CLUSTER=embedded|current|kind)
	@$(PY) -m hone_dev demo --cluster $(CLUSTER)

test: setup ## All that CI runs (leave a tier out by name: SKIP=e2e)
	@$(PY) -m hone_dev.tiers $(if $(SKIP),--skip $(SKIP))

mutate: setup ## Damaged data files against every reader, a larger campaign than the tests run (COUNT=20000)
	@$(PY) -m hone_dev.mutations --count $(COUNT)

test-pure test-apiserver test-trainer: setup ## One tier of the tests
	@$(PY) -m hone_dev.tiers --only $(@:test-%=%)

e2e: setup ## The end-to-end tier on the embedded cluster
	@$(PY) -m hone_dev.tiers --only e2e

long: setup ## Long tests that `make test` leaves out: whole pipelines on real pods, vLLM on two ranks
	@$(PY) -m hone_dev.tiers --only long

attack: setup ## Every attack input against the running parts; prints tried and held by area
	@$(PY) -m hone_dev.attack

lint: setup ## Style, types, import contracts, drift of generated files
	@$(PY) -m hone_dev.tiers --only lint

format: setup ## Format the Python code
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format -q .

crds: setup ## Generate what is generated: CRDs, API reference, chart values, dashboard, Argo CD patch, failure codes in the docs
	@$(PY) -m hone_api.generate && $(PY) -m hone_dev.chart.generate && $(PY) -m hone_dev.dashboards && $(PY) -m hone_dev.argocd && $(PY) -m hone_dev.troubleshooting

lock: setup ## Lock dependencies by version and hash
	@dev/lock.sh

cluster-up: setup ## Bring the embedded cluster up
	@$(PY) -m hone_dev cluster up

cluster-down: setup ## Take it down; nothing is left behind but caches
	@$(PY) -m hone_dev cluster down

clean: setup ## Remove the caches: programs, images and models, tens of GB; the next run makes them anew
	@$(PY) -m hone_dev cluster clean

bench: setup ## Benchmarks; they print ratios against a reference in the same run
	@$(PY) bench/trainer_overhead.py && $(PY) bench/operator_scale.py && $(PY) bench/dataset.py && $(PY) bench/gpu_throughput.py
