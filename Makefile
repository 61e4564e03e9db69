# Two commands do everything: `make demo` and `make test`. `make check` is the inner loop.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Finds uv or installs it; says what it does on stderr.
UV = $(shell hack/bootstrap.sh)

# uv reads neither pip's configuration nor, by itself, the machine's certificates.
export UV_SYSTEM_CERTS ?= 1
export UV_DEFAULT_INDEX ?= $(shell hack/bootstrap.sh --index)

# Compiling every library again in every test process would cost a third of make check.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.venv/.synced: pyproject.toml uv.lock
	@$(UV) sync --frozen
	@touch $@

.PHONY: demo
demo: .venv/.synced ## Carry a real WorkItem from created to done on a real cluster; AGENT=claude: by Claude Code
	@.venv/bin/python -m hack.demo

.PHONY: test
test: .venv/.synced ## Run every test, the end-to-end ones on a real cluster included
	@.venv/bin/python -m hack.cluster test-tools
	@.venv/bin/python -m hack.cluster gitea >/dev/null
	@.venv/bin/python -m hack.cluster helm >/dev/null
	@.venv/bin/python -m hack.cluster kstatus >/dev/null
	@.venv/bin/python -m hack.cluster claude-cli >/dev/null
	@.venv/bin/pytest -n 4 tests/unit tests/loop tests/chart
	@.venv/bin/pytest -v -n 4 --dist loadfile -m "not alone" tests/e2e
	@.venv/bin/pytest -v -m alone tests/e2e

.PHONY: check
check: .venv/.synced ## Format, lint, types, import contracts, unit and loop tests
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/ruff check --quiet
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/python -m hack.cluster test-tools
	@.venv/bin/pytest -n auto -m "not slow" tests/unit tests/loop tests/chart

.PHONY: soak
soak: .venv/.synced ## What takes longer than CI can: new examples of every property; forty kills while items run; 10 GB of output
	@HYPOTHESIS_PROFILE=long .venv/bin/pytest -n auto $$(grep -rl --include=*.py "^from hypothesis import .*given" tests)
	@SOAK_KILLS=40 .venv/bin/pytest -v tests/e2e/test_killed_anywhere.py
	@SOAK_OUTPUT_BYTES=10000000000 .venv/bin/pytest -v tests/e2e/test_bounded.py

.PHONY: bench
bench: .venv/.synced ## Seconds a stage beside the floor, on the cluster
	@.venv/bin/pytest -q -s -p tests.e2e.conftest bench/bench_stages.py

.PHONY: bench-chains
bench-chains: .venv/.synced ## Twenty items of six no-op stages at once, with real pods on the cluster
	@.venv/bin/pytest -q -s -p tests.e2e.conftest bench/bench_chains.py

.PHONY: bench-load
bench-load: .venv/.synced ## What the operator itself costs and holds out, on a control plane of its own
	@.venv/bin/python -m bench.load $(LOAD)

.PHONY: format
format: .venv/.synced ## Format the code and apply the safe fixes
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix

.PHONY: crds
crds: .venv/.synced ## Generate crds/ from the models, and the chart's copies
	@.venv/bin/python -m workitems crds crds
	@.venv/bin/python -m hack.chart sources

.PHONY: manifests
manifests: crds ## Render deploy/ from the chart, after a change of either
	@.venv/bin/python -m hack.chart manifests

.PHONY: cluster
cluster: .venv/.synced ## Bring up the cluster for demo and tests
	@.venv/bin/python -m hack.cluster up

.PHONY: cluster-down
cluster-down: .venv/.synced ## Take it down, leaving nothing
	@.venv/bin/python -m hack.cluster down
