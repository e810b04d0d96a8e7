# Everything that a clone needs; requires Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help setup demo compare large docs test-fast test test-exports golden check serve clean

help:                ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: [^#]*## /\t/' | sort | expand -t 12

setup: $(READY)      ## create .venv with exactly the packages of constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup          ## the whole pipeline on the embedded default; stages that are up to date are skipped
	python -m flows.pipeline

SETTINGS ?=

compare: setup       ## strategies side by side; only missing runs are trained; SETTINGS="-S compare.seeds=[1]" changes params.yaml
	python -m flows.pipeline --compare $(SETTINGS)

WORKSPACE ?= large/workspace

large: setup         ## the comparison on a larger mixture and a 135 M model, for a GPU: docs/LARGE.md
	python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[large]'
	python -m flows.large --workspace $(WORKSPACE)
	python -m flows.pipeline --workspace $(WORKSPACE) --compare $(SETTINGS)

docs: setup          ## the reference of the library, from its docstrings, in site/index.html
	python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	python -m mkdocs build --strict --quiet

# Tests and their helpers are compiled once, also where the environment keeps Python from writing what it compiles.
PYTEST := PYTHONDONTWRITEBYTECODE= python -m pytest --dist loadfile --no-loadscope-reorder
# For two cores: slow tests wait for other programs nearly half of the time, so a third worker has something to do.
ALL_TESTS := $(PYTEST) --numprocesses 3

test-fast: setup     ## what to run before every commit: unit tests, properties, golden curves
	$(PYTEST) --numprocesses 2 -m "not slow and not gpu" --hypothesis-profile "few examples"

test: setup          ## all tests
	$(ALL_TESTS)

EXPORT_ENVIRONMENTS ?= $(HOME)/.cache/velocitune/export-environments

test-exports: setup  ## feed exported files to the other trainers' own parsers, in environments of their own
	VELOCITUNE_EXPORT_ENVIRONMENTS=$(EXPORT_ENVIRONMENTS) python -m pytest tests/core/export

golden: setup        ## write the golden loss curves anew; review the diff of tests/golden/curves
	python tests/golden/regenerate.py

check: setup         ## linter, type checker, tests
	ruff check .
	ruff format --check .
	pyrefly check
	$(ALL_TESTS)

PREFECT_PORT ?= 4200
MLFLOW_PORT ?= 5000

serve: setup         ## Prefect server, a worker and the MLflow UI on loopback, until Ctrl-C
	python -m tasks.views.serve --prefect-port $(PREFECT_PORT) --mlflow-port $(MLFLOW_PORT)

OPTIONS ?=

clean: setup         ## what runs/ holds and what could go; OPTIONS=--delete deletes it; results and caches stay
	python -m flows.clean $(OPTIONS)
