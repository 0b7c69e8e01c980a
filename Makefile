# `make demo`, `make test` and `make docs` set up everything they need in .venv, from the pinned versions.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

demo: .venv/.installed
	$(BIN)/python experiments/demo.py

test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site/index.html; its search works where it is served: $(BIN)/python -m http.server -d site"

clean:
	rm -rf .venv build site *.egg-info .pytest_cache .mypy_cache .ruff_cache demo
