# The targets explain themselves: `make help`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
VERSIONS ?= newest oldest
FAULTS_SEED ?= 0
# Without compiling all of what it installs to bytecode, of which little is ever imported: a third of the time.
INSTALL = $(BIN)/python -m pip install -qq --no-compile -c constraints.txt -e
# Tests run in processes of one thread each: more than four gain little, and each needs about 1.5 GB of memory.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

# The networks that speed is promised for.
NETWORKS = [convnextv2_tiny,convnextv2_small,convnext_tiny,resnet50,resnet50_patchify,resnet18]
BENCH = $(BIN)/videomac bench --overwrite --backbones '$(NETWORKS)'

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-faults lint format docs bench bench-gpu wheel-test clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s  %s\n", $$1, $$2}'

install: $(VENV)/.test ## make .venv and install the package with everything the tests need

demo: $(VENV)/.demo ## pre-train a small network on three clips, on the CPU, into runs/demo: a few minutes
	$(BIN)/videomac demo --out $(RUNS)/demo --overwrite

test: lint ## lint, types, and the whole test suite but for the slow proofs
	$(PYTEST)

test-slow: $(VENV)/.test ## the proofs that take long, such as the engine on every network, size and mask
	$(PYTEST) -m slow

test-faults: $(VENV)/.test ## thousands of injected faults, within two hours; FAULTS_SEED=1 for others than the last time
	@echo "FAULTS_SEED=$(FAULTS_SEED)"
	FAULTS_SEED=$(FAULTS_SEED) OMP_NUM_THREADS=1 timeout --foreground 7200 $(BIN)/python -m pytest -m faults -rA tests/faults

lint: $(VENV)/.test ## check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test ## put the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs ## build the documentation into site/, warnings being errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.test ## measure speed and memory on the CPU, in ten minutes
	OMP_NUM_THREADS=1 $(BENCH) --out $(RUNS)/bench --device cpu --steps '[convnextv2_tiny,resnet18]'

bench-gpu: $(VENV)/.test ## check what runs on a GPU, then measure speed and memory there, in ten minutes
	$(BIN)/python bench/gpu.py --out $(RUNS)/bench-gpu

wheel-test: | $(BIN)/python ## the built wheel alone, in fresh environments with the newest and the oldest versions it allows
	for versions in $(VERSIONS); do $(BIN)/python tests/wheel/check.py $$versions || exit 1; done

clean: ## remove .venv and everything the tools left, but no runs
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -exec rm -rf {} +

# One stamp for each set of packages: installed once, and again when what is asked for has changed.
$(VENV)/.demo $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing videomac[$*] into $(VENV) (PyTorch is large: this takes minutes)"
	@$(INSTALL) '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "videomac needs Python 3.10 or newer, $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
