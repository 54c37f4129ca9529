# Two commands matter: `make demo` and `make test`. Every target sets up what it needs, and does nothing when that is done.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
UV_VERSION := 0.13.9
UV := .tools/bin/uv
LOCK := requirements.lock

export FINANCE_ASSETS_HOME ?= $(CURDIR)/.finance_assets
export DAGSTER_HOME ?= $(FINANCE_ASSETS_HOME)/dagster
# One process must not read the byte code of another's half-written file, so the cache is always allowed.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo dev test generate lint types imports unit faults bench lock clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Create .venv from the lock, and install the package into it

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed; this is " + sys.version.split()[0] + ". Set PYTHON=")'
	@echo "setting up uv $(UV_VERSION)"
	@$(PYTHON) -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): $(LOCK) pyproject.toml | $(UV)
	@echo "setting up $(VENV) from $(LOCK)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode $(LOCK)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lock: | $(UV)  ## Resolve the dependencies anew and write the lock
	@$(UV) pip compile pyproject.toml --all-extras --upgrade --quiet --generate-hashes --no-emit-index-url \
		--no-header --only-binary :all: --python-version 3.11 --output-file $(LOCK)

demo: $(STAMP)  ## Run every asset once on the sample, and show what was made
	@$(BIN)/finance-assets demo

dev: $(STAMP)  ## Dagster at http://localhost:3000, sensors and schedules on, with a local queue of transactions
	@$(BIN)/finance-assets home
	@$(BIN)/finance-assets transactions queue -- $(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $${PORT:-3000}

test: lint types imports unit  ## Everything that CI runs

generate: $(STAMP)  ## Write everything that is generated: dbt YAML, data dictionary, graph snapshot
	@$(BIN)/finance-assets contracts write
	@UPDATE_SNAPSHOT=1 $(BIN)/python -m pytest -q tests/definitions/test_asset_graph.py::test_the_graph_is_as_it_was

lint: $(STAMP)  ## Format and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(STAMP)  ## Types, strict
	@$(BIN)/mypy

imports: $(STAMP)  ## Who may import whom
	@$(BIN)/lint-imports --no-cache

# The tests of a file share what it takes long to make, so a file runs in one process; the long files come first.
unit: $(STAMP)  ## Every test, in parallel
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

faults: $(STAMP)  ## Injected faults alone; FAULTS=10 for the full size
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder tests/faults

bench: $(STAMP)  ## The tables of docs/performance.md
	@$(BIN)/python benchmarks/kpis.py
	@$(BIN)/python benchmarks/advisory.py --postgres
	@$(BIN)/python benchmarks/transactions.py
	@$(BIN)/python benchmarks/sectors.py

clean:  ## Remove what was made, .finance_assets with its lake too, but not the environment
	rm -rf .finance_assets .pytest_cache .mypy_cache .ruff_cache dbt_project/target dbt_project/logs
