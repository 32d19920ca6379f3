# make demo: raw k-space of a numerical brain to maps in demo/. make test: the tests. make docs: the site, in
# docs/_build/html. make figures: the pictures of docs/how_it_works.md. All set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRA ?= test

.PHONY: demo test docs figures install lint clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/mrf demo -o demo

test: $(VENV)/.installed-$(EXTRA)
	$(BIN)/pytest $(PYTEST_OPTIONS)

docs: $(VENV)/.installed-$(if $(filter dev,$(EXTRA)),dev,docs)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --jobs auto -d docs/_build/doctrees docs docs/_build/html
	@echo docs/_build/html/index.html

figures: $(VENV)/.installed
	$(BIN)/python docs/figures

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mrf needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77"

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo build docs/_build *.egg-info
