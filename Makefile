# Everything runs in .venv, which the first command of either kind makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard src/*.pyx src/*.pxi)

.PHONY: demo test bench lint clean

demo: $(VENV)/.demo
	$(BIN)/python -m channels_redis_fast demo $(if $(CHECK),--check) $(ARGS)

test: $(VENV)/.test
	$(BIN)/pytest $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/pytest bench $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/cython-lint src/*.pyx
	$(BIN)/mypy

# One stamp per extra: the package is installed (and compiled) again when a
# source of the compiled modules or the list of requirements changed.
$(VENV)/.%: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "This Python has no venv module (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) build dist *.egg-info channels_redis_fast/*.so src/*.c
