# What a newcomer types. `make help` lists it. Every target sets up .venv first, which happens once.
#
#   PYTHON=...   an interpreter of version 3.11 (found by itself when it is on the PATH)
#   VENV=...     where the environment goes (.venv)
#   DATA=...     recorded market data (../shared/data); its tests and the demo's tape are left out where it is absent

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?= $(if $(FAIRSTRIKE_DATA),$(FAIRSTRIKE_DATA),../shared/data)
ORDERS := $(DATA)/bitstamp-l3-2015-05-01/orders.csv.xz
# One more than two cores: tests of processes and chains wait more than they compute.
PYTEST := $(BIN)/python -m pytest -n 3 --dist worksteal
KERNEL := $(wildcard sequencer/_kernel/*.c)

export FAIRSTRIKE_DATA := $(abspath $(DATA))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Prints an interpreter of version 3.11. A name on the PATH may be a shim for a version that is not selected, so each
# is tried before it is believed.
define FIND_PYTHON
for candidate in $(PYTHON) python3.11 python3 python "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.11*/bin/python; do \
  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; \
  then echo "$$candidate"; exit 0; fi; \
done; \
echo "make: no Python 3.11 with venv found (Debian: python3.11 python3.11-venv); name one with PYTHON=" >&2; exit 1
endef

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: setup
setup: $(STAMP) ## .venv with everything, from PyPI, at the versions of requirements.lock

$(STAMP): requirements.lock pyproject.toml setup.py $(KERNEL)
	@[ -x $(BIN)/python ] || { python="$$($(FIND_PYTHON))"; "$$python" -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --no-input --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-input --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@$(BIN)/python -c 'import importlib.util as u; print("C kernel:", "built" if u.find_spec("sequencer._kernel.cmap_kernel") else "not built (no compiler?); pure Python serves")'
	@$(BIN)/python -m sequencer._compiled
	@touch $@

.PHONY: compiled
compiled: $(STAMP) ## the transition and what is compiled with it anew after an edit (half a minute); optional
	$(BIN)/python setup.py --quiet build_ext --inplace >/dev/null
	@$(BIN)/python -m sequencer._compiled

.PHONY: demo
demo: setup ## the whole exchange on the embedded chain: deposit, trade, batch, claim
	$(BIN)/fairstrike demo --chain pyevm $(if $(wildcard $(DATA)),--tape $(DATA))

.PHONY: test
test: setup ## every test that needs Python only
	FAIRSTRIKE_NODE=0 $(PYTEST) tests

.PHONY: test-all
test-all: setup ## every test, with anvil and hardhat from npm
	$(BIN)/python -c 'from sequencer.l1 import chains; print("devnets:", chains.install())'
	FAIRSTRIKE_NODE=1 $(PYTEST) tests

.PHONY: lint
lint: setup ## style, types, purity of the transition, wrapping of Markdown, artifacts against sources
	@failed=; \
	for check in \
	  "$(BIN)/ruff check --quiet ." \
	  "$(BIN)/ruff format --quiet --check ." \
	  "$(BIN)/mypy" \
	  "$(BIN)/python scripts/check_imports.py" \
	  "$(BIN)/python scripts/wrap_markdown.py --check" \
	  "$(BIN)/python scripts/compile_contracts.py --check"; \
	do echo "$$check"; $$check || failed+=" $${check##*/}"; done; \
	[ -z "$$failed" ] || { echo "lint failed:$$failed"; exit 1; }

.PHONY: newcomer
newcomer: setup ## what README and OPERATIONS say, typed line for line in a fresh clone; checks what is printed
	VENV=$(abspath $(VENV)) scripts/newcomer.sh --short

.PHONY: format
format: setup ## what of the style a program can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: fuzz
fuzz: setup ## the property, differential and simulation tests with many more cases, and the economy fuzz
	FAIRSTRIKE_LONG=1 FAIRSTRIKE_NODE=0 $(PYTEST) --timeout 3600 -m "hypothesis or fuzz" tests
	for seed in $$(seq 20); do $(BIN)/fairstrike fuzz --economy --seed "$$seed"; done

.PHONY: bench
bench: setup ## orders a second end to end, then each part; the book on its recording where there is one
	$(BIN)/fairstrike bench
	for file in $(filter-out benchmarks/book.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python "$$file"; done
	$(if $(wildcard $(ORDERS)),$(BIN)/python benchmarks/book.py $(ORDERS))

.PHONY: lock
lock: ## resolve all versions anew into requirements.lock
	rm -rf build/lock
	python="$$($(FIND_PYTHON))"; "$$python" -m venv build/lock
	build/lock/bin/pip install --quiet setuptools==80.9.0 '.[cluster,contracts,ape,test]'
	build/lock/bin/python scripts/lock_requirements.py > build/requirements.lock
	mv build/requirements.lock requirements.lock

.PHONY: wheels
wheels: ## the wheel in a fresh environment of each Python 3.11 to 3.13 that is here
	scripts/check_wheels.sh

.PHONY: clean
clean: ## remove builds and caches; .venv and var/ stay
	rm -rf build dist .build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	rm -f sequencer/_kernel/*.so sequencer/_compiled/*.so $(STAMP)
	find sequencer scripts tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
