# `make` alone prints this menu: every target whose line has a `##`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := menu
MAKEFLAGS += --no-print-directory

# The Python that the virtual environment is made with; 3.11 or newer.
PYTHON ?= python3
# Handed on to the command: make test ARGS="-k ledger", make demo ARGS="--seconds 30".
ARGS ?=
# Test processes side by side, each with a broker of its own (150 MB): most of a test's time is waiting.
WORKERS ?= 4
# A file's tests stay together, since they share what is slow to start; files go in the order of tests/conftest.py.
SPREAD = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

BIN := .venv/bin
READY := .venv/ready

# $(call step,NAME,COMMAND): says what is done; when it fails, the last line says what failed.
define step
	@printf '\n== %s\n' '$(1)'
	@$(2) || { status=$$?; printf '\nmake %s: failed at: %s\n' '$@' '$(1)' >&2; exit $$status; }
endef

.PHONY: menu
menu:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(READY) rabbitmq ## see it work: orders run through a private broker, messages go astray, the auditor names them
	@$(BIN)/auditor demo $(ARGS)

.PHONY: test
test: $(READY) rabbitmq tools chromium ## everything that has to hold: format, lint, types, import rule, tests
	$(call step,format,$(BIN)/ruff format --check .)
	$(call step,lint,$(BIN)/ruff check .)
	$(call step,types,$(BIN)/mypy)
	$(call step,import rule,$(BIN)/lint-imports)
	$(call step,tests,$(BIN)/pytest $(SPREAD) $(ARGS))
	@printf '\nmake test: all is well\n'

.PHONY: faults
faults: $(READY) rabbitmq ## plant every fault, many times over, and count what the auditor finds, into build/faults.json (half an hour)
	@$(BIN)/pytest tests/faults --long $(ARGS)

.PHONY: bench
bench: $(READY) rabbitmq ## what auditing costs: throughput, CPU, memory, live and at scale, into build/bench.json (five minutes)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

.PHONY: fuzz
fuzz: $(READY) ## feed mutated messages to splitter and decoder, for a minute: whatever is sent, nothing may be raised
	@$(BIN)/python -m tests.tap.fuzz_decode --seconds 60 --save build/fuzz-failure.json $(ARGS)

.PHONY: outside
outside: $(READY) rabbitmq ## what takes the network and more tools: install it, run its services under a systemd, build and run its image, a sender in Java (ten minutes)
	@tests/support/get-tools --outside
	@$(BIN)/pytest tests/outside $(ARGS)

.PHONY: format
format: $(READY) ## put the code into its form, and mend what can be mended without thinking
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: lock
lock: $(READY) ## pin the newest allowed versions of all libraries: requirements.lock to run it, tests/requirements.lock to work on it
	@$(BIN)/pip-compile --upgrade --extra web --output-file requirements.lock pyproject.toml
	@$(BIN)/pip-compile --upgrade --all-extras --constraint requirements.lock --output-file tests/requirements.lock pyproject.toml
	@! grep -n '://' requirements.lock tests/requirements.lock || { echo 'make lock: an address has got into a lock' >&2; exit 1; }

.PHONY: dist
dist: $(READY) ## wheel and source archive, with the commit in them, into dist
	@$(BIN)/python -m build --no-isolation --outdir dist $(ARGS)

.PHONY: install
install: ## install or upgrade it as a service on this machine, as root (docs/operating.md)
	@PYTHON='$(PYTHON)' systemd/install

.PHONY: uninstall
uninstall: ## take the service off this machine again; settings and ledger stay
	@systemd/install --remove

.PHONY: venv
venv: $(READY) ## make .venv, the virtual environment with .venv/bin/auditor (the others do it by themselves)

$(READY): pyproject.toml tests/requirements.lock tests/support/make-venv
	@PYTHON='$(PYTHON)' tests/support/make-venv .venv
	@touch $@

.PHONY: rabbitmq
rabbitmq:
	@tests/support/get-rabbitmq

.PHONY: tools
tools:
	@tests/support/get-tools

.PHONY: chromium
chromium:
	@tests/support/get-chromium
