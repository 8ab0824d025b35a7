# Everything runs in .venv, which the first command of either kind makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard src/*.pyx src/*.pxi)
PACKAGE := $(wildcard channels_redis_fast/*.py channels_redis_fast/*/*.py)

# The compiled modules in two other ways, each in an environment of its own: with every
# line traced, and with libFuzzer's counters and sanitizers (which are clang's).
TRACED := .venv-trace
FUZZED := .venv-fuzz
MATRIX := .venv-matrix
TRACED_TESTS := $(patsubst src/_%.pyx,tests/unit/test_%.py,$(wildcard src/*.pyx)) \
  tests/unit/test_fuzzing.py tests/unit/test_limits.py
CLANG ?= clang
SANITIZERS := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize=function \
  -fno-sanitize-recover=undefined
CHECKS ?= unpack fernet aes_gcm bundle
SECONDS ?= 60
PROGRAMS ?= 1000
SEED ?= 1

# What `make bench` and `make bench-end-to-end` found.
FOUND ?= build/bench.json
FOUND_END_TO_END ?= build/end_to_end.json

# What tests of the checkout need. (Not all of it goes with the matrix's old Django.)
TESTED := $(VENV)/.test,health

# The processes that tests run in: they wait more than they compute. Each imports all
# tests and starts servers of its own. What is compiled is kept, whatever the
# environment says: else each process and its children compile all of it anew.
PROCESSES ?= 6
unexport PYTHONDONTWRITEBYTECODE
# Where tests run by themselves; ARGS may name fewer. To collect all others, too, takes
# as long as to run these.
SERIAL = $(if $(ARGS),,$(shell grep -rl --include='test_*.py' 'mark\.serial' tests))
define pytest
$(BIN)/pytest -n $(PROCESSES) --dist worksteal -m "($(1)) and not serial" $(2) $(ARGS) || \
  [ $$? -eq 5 ] || $(BIN)/pytest --last-failed -m "($(1)) and not serial" $(2) $(ARGS)
$(BIN)/pytest $(SERIAL) -m "($(1)) and serial" $(2) $(ARGS) || [ $$? -eq 5 ]
endef

.PHONY: demo test test-slow test-all test-wheel matrix conformance faults model bench \
  growth bench-end-to-end report micro coverage fuzz lint docs sizes clean

demo: $(VENV)/.demo
	$(BIN)/python -m channels_redis_fast demo $(if $(CHECK),--check) $(ARGS)

# Each behaviour once, in a few minutes. What is marked `serial` runs by itself: it
# measures time. What fails beside others is tried once more alone, where nothing is
# late for want of a turn. (5: no test, where ARGS name those of one half.)
test: $(TESTED)
	$(call pytest,not slow,--hypothesis-profile quick)

# What `make test` leaves out: load, endurance, other servers, what is built, and most
# of the examples that Hypothesis makes.
test-slow: $(TESTED) $(VENV)/.lint
	$(call pytest,slow or hypothesis)

test-all: test test-slow

# Which channel layer keeps which point of Channels' specification, as one table.
conformance: $(TESTED)
	PYTHONPATH=tests $(BIN)/python -m conformance $(ARGS)

# Each fault many times, on both layers; a table of what became of the messages.
faults: $(TESTED)
	$(BIN)/pytest tests/faults/test_fault_table.py --often $(ARGS)

# The wheel in an environment of its own: nothing of the checkout is imported.
test-wheel: $(VENV)/.matrix
	$(BIN)/nox -f .ci/noxfile.py -s 'matrix(newest)' -- $(ARGS)

# The same, and what it has to get along with. What can't run is named at the end.
matrix: $(VENV)/.matrix
	$(BIN)/nox -f .ci/noxfile.py -- $(ARGS)

# All layers in all workloads, in turns (ARGS="-k ..." for some; QUICK=1: one short
# round), and the compiled functions. What was found is what `make report` draws.
bench: $(VENV)/.bench
	@mkdir -p $(dir $(FOUND))
	$(BIN)/pytest bench $(if $(QUICK),--rounds 1 --seconds 0.2) \
	  --benchmark-columns=median,min,max,ops --benchmark-json=$(FOUND) $(ARGS)

# What messages to browsers cost: real servers, real sockets, with and without the mixin
# (ARGS="--only group-1000 daphne" for some; QUICK=1: whether it works).
bench-end-to-end: $(VENV)/.bench
	@mkdir -p $(dir $(FOUND_END_TO_END))
	$(BIN)/python bench/end_to_end/measure.py $(FOUND_END_TO_END) \
	  $(if $(QUICK),--quick) $(ARGS)

# Tables and plots in the docs and the README, of what was measured.
report: $(VENV)/.bench
	$(if $(wildcard $(FOUND)),$(BIN)/python bench/report.py $(FOUND) $(ARGS))
	$(if $(wildcard $(FOUND_END_TO_END)),$(BIN)/python bench/end_to_end/browsers.py \
	  $(FOUND_END_TO_END))

# The compiled functions one by one, then what operations take of Redis: two tables.
micro: $(VENV)/.bench
	$(BIN)/python bench/micro.py $(ARGS)
	$(BIN)/python bench/redis_cpu.py

# Without threads: the tracer lets them switch in the midst of what is one step in C.
coverage: $(TRACED)/.done
	$(TRACED)/bin/pytest $(TRACED_TESTS) -k 'not threads' --cov --cov-report= $(ARGS)
	$(TRACED)/bin/coverage report --include='src/*' --show-missing --fail-under=100

# SECONDS for each of CHECKS. What was tried stays in build/fuzz for the next run.
fuzz: $(FUZZED)/.done
	for check in $(CHECKS); do $(FUZZED)/bin/python bench/fuzz.py $$check build/fuzz \
	  -max_total_time=$(SECONDS) $(ARGS) || exit 1; done

# Random programs, over both layers and all topologies, held against the promises.
model: $(TESTED)
	PROGRAMS=$(PROGRAMS) SEED=$(SEED) $(BIN)/pytest tests/faults/test_model.py -s $(ARGS)

# What 10,000 normal channels and 100,000 others take of a process, and leave behind.
growth: $(TESTED)
	$(BIN)/python bench/growth.py $(ARGS)

# Style, types, workflows (without asking GitHub) and pages.
lint: $(VENV)/.lint docs
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	PATH=$(abspath $(BIN)):$$PATH cython-lint src/*.pyx
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github

# A page that can't be built, a link to nowhere and a page that nobody reaches are errors.
docs: $(VENV)/.lint
	rm -rf build/docs
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs
	@echo "see build/docs/index.html"

# The longest files, classes, constructors and functions of the package.
sizes: $(VENV)/bin/python
	$(BIN)/python tests/support/sizes.py

# One stamp per extra: the package is installed (and compiled) again when a
# source of the compiled modules or the list of requirements changed.
$(VENV)/.%: $(SOURCES) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

# Not editable: these must not take the place of the fast modules in the checkout.
$(TRACED)/.done: $(SOURCES) $(PACKAGE) | $(TRACED)/bin/python
	CHANNELS_REDIS_FAST_TRACE=1 $(TRACED)/bin/python -m pip install --quiet '.[coverage]'
	@touch $@

$(FUZZED)/.done: $(SOURCES) $(PACKAGE) | $(FUZZED)/bin/python
	@command -v $(CLANG) || { echo "clang is needed; name one: make CLANG=clang-19"; exit 1; }
	CC=$(CLANG) LDSHARED='$(CLANG) -shared' CFLAGS='-O1 -g $(SANITIZERS)' \
	  $(FUZZED)/bin/python -m pip install --quiet '.[fuzz]'
	@touch $@

$(VENV)/bin/python $(TRACED)/bin/python $(FUZZED)/bin/python: %/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "This Python has no venv module (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $*
	$@ -m pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) $(TRACED) $(FUZZED) $(MATRIX) build dist *.egg-info channels_redis_fast/wire/*.so src/*.c
