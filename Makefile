# `make demo` and `make test` work on a fresh machine: both create .venv first.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: demo test slow lint docs site dist

$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(VENV)/bin/nas3r demo -o out/demo

test: $(STAMP)
	$(VENV)/bin/pytest -n auto

slow: $(STAMP)
	$(VENV)/bin/pytest -m slow

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

# The documentation with search, on this machine only.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve --open --dev-addr 127.0.0.1:8000

site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# What a registry would get, and whether it works with nothing beside it.
dist: $(STAMP)
	rm -rf dist out/fresh out/fresh-demo
	$(VENV)/bin/python -m build --outdir dist
	$(PYTHON) -m venv out/fresh
	out/fresh/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd out && fresh/bin/nas3r --version && fresh/bin/nas3r demo -o fresh-demo
