# Sets up .venv on first use and runs what CI runs. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo-installed
DEV := $(VENV)/.dev-installed
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --max-worker-restart 0

.PHONY: demo check test test-fast slow coverage lint format docs clean

# installs what the demo needs: the package and the extra `train`
demo: $(DEMO)
	$(BIN)/turnmark demo

check: lint test

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python tools/words.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(DEV)
	$(PYTEST) -m "not slow"

# no training, no sandbox, no process: what a contributor runs while working
test-fast: $(DEV)
	$(PYTEST) -m "not slow and not heavy"

# what takes minutes, and all cases of what `make test` takes samples of
slow: $(DEV)
	TURNMARK_TESTS_IN_FULL=1 $(PYTEST) -m "slow or sampled"

# of the quick tests; measuring costs half of their time, so `make check` does not
coverage: $(DEV)
	TURNMARK_TEST_FACTOR=9 $(PYTEST) -m "not slow and not heavy" --cov --cov-report=term

# the site, into site/; no network, no warning
docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) dist build site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(DEMO): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[train]'
	touch $(DEMO)

# --group (dependency groups) came with pip 25.1
$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -e '.[all]' --group dev
	touch $(DEMO) $(DEV)
