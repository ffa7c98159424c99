# On a fresh machine, `make table1` and `make test` do all the set-up themselves.

PYTHON ?= python3
WANDB ?= off
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Pins are those of the Python in the environment: the one that made it, once it is there.
VERSION := $(shell { test -x $(BIN)/python && $(BIN)/python -V || $(PYTHON) -V; } 2>/dev/null | awk '{split($$2, v, "."); print v[1] v[2]}')
NEWEST := $(lastword $(sort $(wildcard constraints/py*.txt)))
CONSTRAINTS := $(or $(wildcard constraints/py$(VERSION).txt),$(NEWEST))

.DEFAULT_GOAL := help
.PHONY: help setup demo table1 missing-rates status test test-slow checklist lint type format docs docs-links regression gpu benchmark clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with the package and its pinned dependencies

$(READY): setup.cfg pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "mmbench needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; name another with PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test $(CONSTRAINTS) = constraints/py$(VERSION).txt || echo "no pins for this Python yet; trying those of $(CONSTRAINTS)"
	@echo "installing into $(VENV) (minutes, the first time)"
	@$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

demo: $(READY) ## a first result in sentences: two methods on the embedded data (ARGS=--open opens its page)
	$(BIN)/mmbench demo $(ARGS)

table1: $(READY) ## run Table 1 on the embedded data, print it and compare it with results/table1 (WANDB=online|offline, ARGS="--jobs 4")
	$(BIN)/mmbench run experiments/table1.yaml --wandb $(WANDB) $(ARGS)

missing-rates: $(READY) ## accuracy of every method by missing rate, as a table and curves (ARGS=--quick for a smaller grid)
	$(BIN)/mmbench run experiments/missing_rates.yaml --wandb $(WANDB) $(ARGS)

status: $(READY) ## what is done of Table 1
	$(BIN)/mmbench status experiments/table1.yaml

test: $(READY) ## the tests, without the slow ones
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-slow: $(READY) ## the slow tests
	$(BIN)/python -m pytest -m "slow and not merged" --numprocesses auto $(ARGS)

checklist: $(READY) ## whether what is new has its tests, rows and bands, as what is merged here needs
	$(BIN)/python -m pytest -m merged $(ARGS)

lint: $(READY) ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY) ## types
	$(BIN)/mypy

docs: $(READY) ## build the site into docs/_build/html and check its links (warnings are errors)
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --jobs auto --quiet $(ARGS) docs docs/_build/html
	$(BIN)/python docs/_ext/links.py docs/_build/html
	@echo "open docs/_build/html/index.html"

docs-links: $(READY) ## whether the site's links to elsewhere lead somewhere (needs the network)
	$(BIN)/python -m sphinx --builder linkcheck --quiet -D plot_gallery=0 docs docs/_build/linkcheck

regression: $(READY) ## run the small grids anew and hold them to their accuracy bands
	$(BIN)/mmbench check $(ARGS)
	$(BIN)/mmbench check regression_missing $(ARGS)
	$(BIN)/mmbench check regression_imbalance $(ARGS)

gpu: $(READY) ## check and time the suite on a GPU, in six minutes; writes results/gpu/<card>.md (ARGS="--device cpu --tiny" tries it without one)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

benchmark: $(READY) ## overheads, as ratios
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/adding.py
	$(BIN)/python benchmarks/devices.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/passes.py
	$(BIN)/python benchmarks/missing.py
	$(BIN)/python benchmarks/ray_trials.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/runners.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/trial.py
	$(BIN)/python benchmarks/waiting.py

clean: ## remove the environment and caches; results are kept
	rm -rf $(VENV) build *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
