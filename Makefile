# Each target sets up all it needs: a virtual environment in .venv and the packages in it. A second
# call installs again only if setup.py or the constraints have changed.

, := ,
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
FUZZ_SECONDS ?= 300
QUICKSTART := --config=configs/quickstart.py --workdir=runs/quickstart

# The first interpreter that runs, is of a supported version and can make an environment. A name on
# the path is not enough: it may be a placeholder of a version manager.
SUPPORTED := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
  if "$$name" -I -c '$(SUPPORTED)' 2>/dev/null; then echo "$$name"; break; fi; done)

# Settings of the surrounding shell that would send packages elsewhere or change what is imported.
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS
unexport PIP_REQUIRE_VIRTUALENV PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test test-slow test-convert fuzz bench lint format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

quickstart: $(VENV)/.base ## Train a small model, extract, search, re-rank and report, on a CPU
	$(BIN)/delg train $(QUICKSTART)
	$(BIN)/delg evaluate $(QUICKSTART)

test: lint ## Check the style and run all tests but the slow ones
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/.test ## Run the slow tests
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m slow

test-convert: $(VENV)/.test ## Install TensorFlow and PyTorch and run the tests that need them
	$(call install,.[test$(,)convert])
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest tests/models/weights tests/cli/test_convert.py

fuzz: $(VENV)/.test ## Let a fuzzer look for files that break the readers, for FUZZ_SECONDS in all
	$(call install,.[test$(,)fuzz])
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.fuzz --seconds=$(FUZZ_SECONDS)

bench: $(VENV)/.test ## Run all benchmarks on this CPU and update the table in the README
	$(call install,.[test$(,)bench])
	JAX_PLATFORMS=cpu $(BIN)/python -m experiments.benchmarks.bench_all

lint: $(VENV)/.test ## Check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test ## Mend the style where that can be done by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and the caches, but no results (runs/)
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@"$(PYTHON)" -I -c '$(SUPPORTED)' || { echo "Python 3.11, 3.12 or 3.13 with the venv module is" \
	  "needed, not '$(PYTHON)'; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.base: setup.py $(wildcard constraints/*.txt) | $(BIN)/pip
	$(call install,.)
	@touch $@

$(VENV)/.test: setup.py $(wildcard constraints/*.txt) | $(BIN)/pip
	$(call install,.[test])
	@touch $(VENV)/.base $@

define install
version=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
$(BIN)/python -m pip install --disable-pip-version-check -e '$(1)' \
  -c "$(or $(CONSTRAINTS),constraints/$$version.txt)"
endef
