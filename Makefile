# parlm: `make serve` serves, `make test` proves. Both install what they need on first use.

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help install serve chat test check format bench bench-llama-cpp clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "parlm needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml scripts/install_llama_cpp.sh scripts/llama_cpp_build.cmake | $(BIN)/python
	@echo "Installing parlm into $(VENV) ..."
	@scripts/install_llama_cpp.sh $(BIN)/python
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[llama-cpp]'
	@touch $@

$(DEV): pyproject.toml $(STAMP)
	@echo "Installing the development tools ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: $(STAMP) ## Install the server and the llama.cpp engine into .venv

serve: $(STAMP) ## Serve the model that .env names (the built-in one without .env)
	@exec $(BIN)/parlm serve

chat: $(STAMP) ## Chat with the running server
	@exec $(BIN)/parlm chat

test: $(DEV) ## Run all tests
	@$(BIN)/python -m pytest

check: $(DEV) ## Check format, lint, types and who imports whom
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(DEV) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(DEV) ## Measure the HTTP layer's cost per streamed event
	@$(BIN)/python -m benchmarks.sse_overhead

bench-llama-cpp: $(DEV) ## Measure GGUF speed beside other servers; options by ARGS="--help"
	@$(BIN)/python -m benchmarks.engines.llama_cpp $(ARGS)

clean: ## Remove the virtual environment and caches (not the cached llama.cpp wheel)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
