# Two commands set everything up: `make demo` runs the whole pipeline, `make test` checks the code.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
HASH := $(shell $(PYTHON) -c "import hashlib; print(hashlib.sha256(open('pyproject.toml', 'rb').read()).hexdigest()[:16])")
INSTALLED := $(VENV)/.installed-$(HASH)
INSTALLED_DEV := $(VENV)/.installed-dev-$(HASH)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint types pytest slow gpu format dev

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(INSTALLED) ## Set up .venv, then train, search, quantize, compile and verify on the embedded digits
	$(BIN)/hawq demo

test: lint types pytest ## Set up .venv with the development tools, then lint, check types and run the fast tests

lint: $(INSTALLED_DEV) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED_DEV) ## Check types (strict on hawq/integer and search)
	$(BIN)/mypy

pytest: $(INSTALLED_DEV) ## Run the fast tests
	$(BIN)/python -m pytest --durations=15

slow: $(INSTALLED_DEV) ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow --durations=15

gpu: $(INSTALLED_DEV) ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu --durations=15

format: $(INSTALLED_DEV) ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dev: $(INSTALLED_DEV) ## Set up .venv with the development tools
	@:

# A stamp carries the hash of pyproject.toml: changed dependencies install again, an unchanged file never does.
$(INSTALLED): | $(BIN)/python
	@echo "installing hawq into $(VENV) (once; a few minutes)"
	$(PIP_INSTALL) "setuptools>=77" --editable .
	@rm -f $(VENV)/.installed-* && touch $@

$(INSTALLED_DEV): | $(BIN)/python
	@echo "installing hawq and its development tools into $(VENV) (once; a few minutes)"
	$(PIP_INSTALL) "setuptools>=77" --editable ".[dev]"
	@rm -f $(VENV)/.installed-* && touch $(INSTALLED) $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
