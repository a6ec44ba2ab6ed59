# Everything that is done here, by name. Needs git, make and Python 3.11 or newer; the rest is
# installed into .venv the first time, and again when pyproject.toml changes.

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := docs/examples/permits
CASE := case-4516
STORE := sqlite:///demo.db
SEEDS := 1000
MINUTES := 2
STORES := sqlite postgres cluster
ROUNDS := 3

help:  ## This list
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1	\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(READY)  ## Run the example on an SQLite file, then show what was stored
	$(BIN)/flowstate run $(DEMO).py:flows --input $(DEMO).jsonl --start receive --store $(STORE)
	$(BIN)/flowstate ls --store $(STORE)
	$(BIN)/flowstate show $(CASE) --history --store $(STORE)

test: $(READY)  ## Run all tests but those of the built package, and each benchmark once, in two processes
	$(BIN)/pytest -q -n 2 --dist worksteal --ignore tests/test_package.py

check: $(READY)  ## Lint, format, types, layers, and the built package
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_package.py

bench: $(READY)  ## Measure: the benchmarks, each beside its raw limit
	$(BIN)/pytest -o addopts= benchmarks --benchmark-only

peers: $(READY)  ## Measure what else could be used (DBOS, LangGraph, state machines), beside flowstate
	$(BIN)/python -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -e '.[bench,postgres]' -r benchmarks/peers/requirements.txt
	.venv-peers/bin/python -m benchmarks.peers --out peers

simulate: $(READY)  ## Run SEEDS=1000 simulated clusters with faults; SEED=n replays one
	$(BIN)/python -m flowstate.testing.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

jepsen: $(READY)  ## Attack each store (STORES=...) for MINUTES=2 with kill -9, stops, crashes and wrong clocks
	$(if $(filter cluster,$(STORES)),@tools/cluster $(VENV))
	$(BIN)/python -m tests.jepsen --minutes $(MINUTES) $(addprefix --store ,$(STORES))

cluster: $(READY)  ## Kill and stop the nodes of a PostgreSQL cluster under load, ROUNDS=3 times each
	@tools/cluster $(VENV)
	ROUNDS=$(ROUNDS) $(BIN)/pytest -q tests/cluster/failovers.py

format: $(READY)  ## Put the code in the form that check wants
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

clean:  ## Remove everything that the other targets made
	rm -rf $(VENV) .venv-peers peers build dist demo.db demo.db-wal demo.db-shm demo.db-sessions .benchmarks .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml tools/setup
	@PYTHON="$(PYTHON)" tools/setup $(VENV)
	@touch $@

.PHONY: help demo test check bench peers simulate jepsen cluster format clean
