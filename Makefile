# Each target sets up its own virtual environment from nothing: Python 3.11 or later, pip and make are all it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo demo-local-model test test-local-model bench check clean

demo: $(VENV)/.serve
	$(BIN)/floop-gateway demo

demo-local-model: $(VENV)/.local
	$(BIN)/floop-gateway demo --local-model

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

test-local-model: $(VENV)/.dev $(VENV)/.local
	FLOOP_GATEWAY_LOCAL_MODEL=1 $(BIN)/pytest tests/test_local_model.py -v

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.serve: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[serve]'
	touch $@

$(VENV)/.local: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[serve,local]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
