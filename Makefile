# Every target makes the environment it needs, from the lock file. `make demo` and `make test` are all that
# a new user has to know.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
PYTEST_ARGS ?= -n 3 --dist worksteal
COMPILE := uv pip compile --universal --python-version 3.11 --no-strip-extras --generate-hashes --no-emit-index-url \
  --no-header
PYTHONS_TESTS := tests/unit tests/integration/test_client.py tests/acceptance/test_commands.py
PYTHONS ?= $(foreach version,3.11 3.12 3.13 3.14,$(shell command -v python$(version)))

# Set in some shells and images: each of thousands of processes would compile all that it imports, and the
# output would not be written as a user's is.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

.PHONY: help setup demo up test pythons lint format lock lock-image bench chaos clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make the environment from the lock file

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP) ## The main job, end to end, on the embedded server
	$(BIN)/rmos demo $(DEMO_ARGS)

up: $(STAMP) ## All processes, until stopped
	$(BIN)/rmos up

test: $(STAMP) ## All tests, with coverage
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov --cov-report=term

pythons: ## Unit tests, client and command line on every Python from 3.11 to 3.14 that is installed
	@for python in $(PYTHONS); do \
	  venv=.venv-$$(basename $$python) && $(MAKE) --no-print-directory setup VENV=$$venv PYTHON=$$python \
	  && $$venv/bin/python -m pytest -q -n 2 $(PYTHONS_TESTS) || exit 1; done

lint: $(STAMP) ## Ruff, mypy, imports and commit subjects, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@git log --format=%s 719aeb7..HEAD | awk 'length > 72 { print "subject longer than 72: " $$0; bad = 1 } END { exit bad }'

format: $(STAMP) ## Let ruff format and repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Renew the lock files; needs uv
	$(COMPILE) pyproject.toml --extra all --group dev --upgrade -o requirements.lock
	$(COMPILE) --group pyproject.toml:bench -c requirements.lock --upgrade -o requirements-bench.lock
	$(MAKE) --no-print-directory lock-image

lock-image: ## Renew the lock files of the image, with the versions of the lock file; needs uv
	$(COMPILE) pyproject.toml --extra all -c requirements.lock --upgrade -o requirements-runtime.lock
	$(COMPILE) --group pyproject.toml:build -c requirements.lock --upgrade -o requirements-build.lock

clean: ## Remove what was made
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	touch $@

bench: $(BENCH_STAMP) ## Ratios against references, in one run; BENCH_ARGS=--quick
	$(BIN)/python bench/run.py $(BENCH_ARGS)

chaos: $(STAMP) ## Break a real rmos up for five minutes, then count; CHAOS_ARGS="--seconds 60 --seed 1 --json"
	PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS_ARGS)
