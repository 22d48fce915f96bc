# Two commands do everything on a fresh Debian machine: `make demo` and `make test`.

PYTHON ?= python3
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
CODE := mppobs tests bench
COVERAGE := 90
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-all lint format bench generated picture pictures servers clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## Run two TPC-H queries on real data and show their indicators (ARGS="--serve")
	@$(BIN)/mppobs demo $(ARGS)

test: lint servers  ## Lint, type-check and run the tests (ARGS="-k journal")
	@$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

coverage: lint servers  ## The same with the share of the code that they run; tracing holds up stops in Dask's workers
	@$(BIN)/python -m pytest -n 2 -m "not slow" -k "not dask" --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE) $(ARGS)

test-all: lint servers  ## Run the slow tests too: minutes more
	@$(BIN)/python -m pytest -n 2 --hypothesis-profile=searching $(ARGS)

lint: $(VENV)/.dev  ## Check style, format and types
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/ruff format --quiet --check $(CODE)
	@$(BIN)/mypy --strict --no-error-summary

format: $(VENV)/.dev  ## Format the code
	@$(BIN)/ruff check --quiet --fix $(CODE)
	@$(BIN)/ruff format --quiet $(CODE)

bench: $(VENV)/.dev  ## Run every benchmark, each beside its peer (ARGS="--json")
	@status=0; for script in $$(grep -l '^from report' bench/*.py); do \
		echo "== $$script" >&2; $(BIN)/python $$script $(ARGS) || status=1; done; exit $$status

generated: $(VENV)/.dev  ## Write alerts/, dashboards/ and the rules of deploy/ again
	@$(BIN)/mppobs generate examples/slo.yaml --out alerts
	@$(BIN)/mppobs dashboards build dashboards
	@cp examples/slo.yaml examples/prices.yaml deploy/kubernetes/base/
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
		$(BIN)/mppobs generate examples/slo.yaml --out "$$made" --format kubernetes \
			--runbooks http://mppobs-aggregator.mppobs:9466/runbooks >/dev/null; \
		rm -f deploy/kubernetes/base/rules/*; cp "$$made"/rules/* deploy/kubernetes/base/rules/

picture: $(VENV)/.demo  ## Run the demo and draw the picture of the README
	@$(BIN)/mppobs demo --picture docs/demo.svg

pictures: $(VENV)/.dev  ## Draw the dashboards from a real run with faults: ten minutes
	@$(BIN)/python scripts/pictures

servers:
	@scripts/setup servers

clean:  ## Remove the virtual environment and what the tools left
	@rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@scripts/setup venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing mppobs[demo] into $(VENV)"
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing mppobs[dev] into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.demo $@
