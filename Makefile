# make demo   set up, train teacher and students on embedded data, show a table
# make test   set up, checks, whole test suite
# make help   the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RECIPE := recipes/DCASE2019_Task5
BENCH_READY := $(VENV)/.bench-ready
BENCH_OPTIONS ?=
PIPELINE_OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test check test-oldest tables bench clean

help:
	@echo "make demo         train a teacher, a plain and a distilled student; a table"
	@echo "make test         all checks and tests"
	@echo "make check        linters, types, spelling, doctests, consistency"
	@echo "make tables       write the README's tables from the scores files"
	@echo "make bench        measure the losses and the data pipeline"
	@echo "make test-oldest  the tests on the oldest supported torch"
	@echo "make clean        remove the environment and the demo's results"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 10) or sys.exit('Python >= 3.10 is needed, this is ' + sys.version.split()[0] + '; name another: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@touch $(READY)

demo: $(READY)
	cd $(RECIPE) && ../../$(BIN)/python demo.py

test: check
	$(BIN)/python -m pytest tests --cov --cov-report=term:skip-covered \
	    --cov-fail-under=90 --ignore=tests/consistency

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint -s -d "{extends: .yamllint.yaml, rules: {line-length: disable}}" $(RECIPE)
	$(BIN)/codespell
	$(BIN)/python -m pytest -q iusp_plugin tests/consistency

# torch 2.7.1 and torchaudio 2.7.1 in an environment of their own.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install "torch==2.7.1" "torchaudio==2.7.1" -e ".[dev]"
	.venv-oldest/bin/python -m pytest iusp_plugin tests

tables: $(READY)
	$(BIN)/python $(RECIPE)/tables.py

# make bench BENCH_OPTIONS="--only A --threads 1" PIPELINE_OPTIONS="--only B"
bench: $(BENCH_READY)
	$(BIN)/python benchmarks/losses.py $(BENCH_OPTIONS)
	$(BIN)/python benchmarks/pipeline.py $(PIPELINE_OPTIONS)

$(BENCH_READY): $(READY)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,bench]"
	@touch $(BENCH_READY)

clean:
	rm -rf $(VENV) .venv-oldest $(RECIPE)/results/demo $(RECIPE)/data
