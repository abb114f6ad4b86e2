# Each target installs what it needs into a virtual environment in .venv. Another call installs
# again only if setup.py or the constraints have changed.

, := ,
VENV := .venv
BIN := $(VENV)/bin
# One more than the two cores of CI: tests also wait for disks and other processes
WORKERS ?= 3
FUZZ_SECONDS ?= 300
# Programs that the tests compiled, kept for the next run
DELG_TEST_CACHE ?= $(CURDIR)/.jax_cache
export DELG_TEST_CACHE
QUICKSTART := --config=configs/quickstart.py --workdir=runs/quickstart

# The first supported Python that runs and can create an environment. A name on the path is not
# enough: it may be a version manager's placeholder.
SUPPORTED := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
  if "$$name" -I -c '$(SUPPORTED)' 2>/dev/null; then echo "$$name"; break; fi; done)

# Settings of the caller's shell that would change where packages go or what is imported, or that
# would have every process compile all modules again.
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS PYTHONDONTWRITEBYTECODE
unexport PIP_REQUIRE_VIRTUALENV PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test test-slow test-convert fuzz docs links wheel figures bench lint format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

quickstart: $(VENV)/.base ## Train a small model, extract, search, re-rank and report, on a CPU
	$(BIN)/delg train $(QUICKSTART)
	$(BIN)/delg evaluate $(QUICKSTART)

test: lint ## Lint, then run all tests except the slow ones
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/.test ## Run the slow tests
	JAX_PLATFORMS=cpu XLA_FLAGS= $(BIN)/python -m pytest -m slow

test-convert: $(VENV)/.test ## Install TensorFlow and PyTorch, run the tests that need them
	$(call install,.[test$(,)convert$(,)bench])
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest tests/models/weights tests/cli/test_convert.py

fuzz: $(VENV)/.test ## Fuzz the file readers for FUZZ_SECONDS
	$(call install,.[test$(,)fuzz])
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.fuzz --seconds=$(FUZZ_SECONDS)

docs: $(VENV)/.docs ## Build the documentation, its notebooks included, in docs/_build
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

wheel: $(VENV)/.base ## Build and check the packages in dist
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

links: docs ## Check the links of the documentation to other sites; needs the internet
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -b linkcheck -D nb_execution_mode=off -q docs docs/_build/links

figures: $(VENV)/.base ## Write the figures of README.md and docs from experiments/results
	JAX_PLATFORMS=cpu $(BIN)/python -m experiments.figures

bench: $(VENV)/.test ## Run all benchmarks on this CPU and update the table in docs/benchmarks.md
	$(call install,.[test$(,)bench])
	JAX_PLATFORMS=cpu $(BIN)/python -m experiments.benchmarks.bench_all
	JAX_PLATFORMS=cpu $(BIN)/python -m experiments.figures

lint: $(VENV)/.test ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test ## Fix the style where ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and caches; runs/ stays
	rm -rf $(VENV) .jax_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@"$(PYTHON)" -I -c '$(SUPPORTED)' || { echo "PYTHON = '$(PYTHON)': must be Python" \
	  "3.11 to 3.13 with the venv module; use make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.base: setup.py $(wildcard constraints/*.txt) | $(BIN)/pip
	$(call install,.)
	@touch $@

$(VENV)/.test: setup.py $(wildcard constraints/*.txt) | $(BIN)/pip
	$(call install,.[test])
	@touch $(VENV)/.base $@

$(VENV)/.docs: setup.py $(wildcard constraints/*.txt) | $(BIN)/pip
	$(call install,.[docs])
	@touch $(VENV)/.base $@

$(VENV)/.all: setup.py $(wildcard constraints/*.txt) | $(BIN)/pip
	$(call install,.[test$(,)docs])
	@touch $(VENV)/.base $(VENV)/.test $(VENV)/.docs $@

define install
version=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
$(BIN)/python -m pip install --disable-pip-version-check -e '$(1)' \
  -c "$(or $(CONSTRAINTS),constraints/$$version.txt)"
endef
