# Two commands matter: `make build` (a promoted model from nothing) and `make test`. Both set .venv up where it is missing or
# older than requirements.lock; everything else is `stillhouse` and the tools' own commands, inside .venv.

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
export PATH := $(BIN):$(PATH)
# A container's user often has neither a name nor a home, and DVC does not start without.
ifndef USER
export USER := $(firstword $(shell id -un 2> /dev/null || id -u))
endif
ifndef HOME
export HOME := $(or $(shell getent passwd "$$(id -u)" | cut -d: -f6),$(shell mkdir -p .stillhouse/home && realpath .stillhouse/home))
endif

.DEFAULT_GOAL := help
.PHONY: help build test stack-test lint docs bench ablate ui clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

build: $(READY)  ## everything that is stale, from sources to a promoted model and its report
	@dvc repro || { echo "the build stopped; putting the last good outputs back"; dvc checkout --quiet; exit 1; }
	@echo "report: data/promoted/report.html   history and registry: make ui"

test: $(READY)  ## the tests, on up to 4 cores
	@pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

stack-test: $(READY)  ## the deployment with real containers; as root on Debian, with Docker's engine and Compose
	@python -m tests.stack.walk

lint: $(READY)  ## style and types
	@ruff check . && ruff format --check . && mypy

docs: $(READY)  ## the documentation as pages in docs/_build; a broken link is an error
	@sphinx-build --quiet --fail-on-warning --builder html docs docs/_build
	@echo "documentation: docs/_build/index.html"

bench: $(READY)  ## the figures of this machine, printed and written to bench.json
	@python -m tests.benchmarks.bench

ablate: $(READY)  ## the paper's claims at this scale, as DVC experiments; the table goes to docs/results/ablations.md
	@python -m tests.ablations.ablate

ui: $(READY)  ## MLflow's history and registry at http://127.0.0.1:5000
	@mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db

clean:  ## remove what builds made (the vector store, checkpoints, data, history); keeps .venv and data/sources
	@find data -mindepth 1 -maxdepth 1 ! -name sources ! -name README.md -exec rm -rf {} +
	@rm -rf .stillhouse .dvc/cache .dvc/tmp mlruns mlflow.db bench.json

# The project itself: the command `stillhouse`. The lock's setuptools builds it, so no index is asked.
EDITABLE := --no-deps --no-build-isolation --no-index --editable .

# The lock names every package, so nothing is left to resolve (older pip cannot, with hashes and extras). uv takes a third of
# pip's time; where it cannot be had, or sees no index, pip does the same. Bytecode is compiled at installation: without it
# every stage's imports take 2 to 4 times as long.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is another: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up .venv (several GB, minutes)"
	@$(PYTHON) -m venv .venv
	@command -v uv > /dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv || true
	@uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes --compile-bytecode -r requirements.lock || \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@uv pip install --quiet --python .venv/bin/python $(EDITABLE) || \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check $(EDITABLE)
	@touch $@
