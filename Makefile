# Everything runs from the checkout, through `python -m`: scripts of a virtual environment break in long paths.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The first Python on the path that is new enough.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done || echo python3)
VENV ?= .venv
RUN := $(VENV)/bin/python
# Tests wait more than they compute: three at once keep two cores busy. JOBS=0 runs them one after the other.
JOBS ?= 3
PYTEST := $(RUN) -m pytest -n $(JOBS)
# More options for pytest, as in: make test ARGS="-k lease -x"
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Another Python:  make test PYTHON=python3.13 VENV=.venv-3.13"
	@echo "  Some tests:      make test ARGS='-k lease -x'"
	@echo "  Another server:  make test REPROQ_TEST_PG_BIN=/usr/lib/postgresql/16/bin"

.PHONY: demo
# Nothing outside the checkout: a Python whose bytecode is missing would have it written beside its library.
demo: export PYTHONPYCACHEPREFIX = $(CURDIR)/.reproq/bytecode
demo: runtime ## Run the whole thing on real input, with nothing but Python: takes about a minute
	@$(RUN) -P -m reproq_supervisor demo $(ARGS)

.PHONY: shop
shop: ## Start a Django site whose orders, pictures and reports are tasks, on http://127.0.0.1:8000
	@$(PYTHON) .ci/venv.py "$(VENV)" embedded django
	@$(RUN) examples/django_shop/start.py $(ARGS)

.PHONY: test
test: venv ## Run the whole test suite
	$(PYTEST) $(ARGS)

.PHONY: test-fast
test-fast: venv ## Run the tests that take no more than a few seconds each
	$(PYTEST) -m "not slow" $(ARGS)

.PHONY: test-oldest
test-oldest: venv ## Run the tests that use a database on the oldest PostgreSQL (15 or later) of this machine
	REPROQ_TEST_PG_BIN=oldest $(PYTEST) -m "postgres and not slow" $(ARGS)

# Python and Django; before 6.0 with the backport. Pairs whose Python is not there are named and left out.
DJANGO_MATRIX ?= 3.11:5.2 3.12:5.2 3.13:5.2 3.12:6.0 3.13:6.0 3.12:6.1 3.13:6.1
.PHONY: test-django-matrix
test-django-matrix: export JOBS := $(JOBS)
test-django-matrix: ## Run the tests of the Django package with every Django that it supports, on every Python of this machine
	@.ci/django-matrix $(DJANGO_MATRIX) -- $(ARGS)

.PHONY: test-django-own
test-django-own: ## Fetch the tests that Django ships for its tasks framework, and run them against this backend (Django 6 and later)
	@.ci/django-own $(ARGS)

.PHONY: check
check: venv ## Check format, lint, types, architecture and the pure parts: what CI does first
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(PYTEST) -q tests/architecture tests/unit tests/property $(ARGS)

.PHONY: bench
bench: venv ## Measure tasks/s beside the raw SQL on the same schema, latency and memory
	$(RUN) -m benchmarks.throughput $(ARGS)

BENCHMARKS = bench bench-latency bench-forks bench-modes bench-memory bench-django bench-recovery bench-scaling bench-matrix bench-peers
.PHONY: bench-all
bench-all: ## Run every benchmark of speed, size and recovery, one after the other; takes three hours
	@for each in $(BENCHMARKS); do echo "--- make $$each"; $(MAKE) --no-print-directory $$each || exit 1; done

.PHONY: bench-peers
bench-peers: bench-venv ## Measure this product, the raw SQL and other queues in turns; takes about an hour (--only, --measure, --rounds)
	$(RUN) -m benchmarks.peers $(ARGS)

.PHONY: bench-matrix
bench-matrix: venv ## Measure every mode, longer tasks, larger payloads, and claims beside a million runs; takes about an hour
	$(RUN) -m benchmarks.matrix $(ARGS)

.PHONY: bench-latency
bench-latency: venv ## Measure the time from a task's commit to its start on an idle pool, stage by stage
	$(RUN) -m benchmarks.latency $(ARGS)

.PHONY: bench-recovery
bench-recovery: venv ## Measure how long after the death of each kind of process its work goes on
	$(RUN) -m benchmarks.recovery $(ARGS)

.PHONY: bench-wake
bench-wake: venv ## Measure how late a delayed task starts on an idle pool
	$(RUN) -m benchmarks.wake $(ARGS)

.PHONY: bench-beat
bench-beat: venv ## Measure how accurately schedules fire, what ten thousand cost, and how soon a keeper is followed
	$(RUN) -m benchmarks.beat $(ARGS)

.PHONY: bench-retention
bench-retention: venv ## Measure the deletion of a million old runs beside claims, and what partitions would cost
	$(RUN) -m benchmarks.retention $(ARGS)

.PHONY: bench-modes
bench-modes: venv ## Measure tasks/s of the modes process, thread and async side by side
	$(RUN) -m benchmarks.modes $(ARGS)

.PHONY: bench-forks
bench-forks: venv ## Measure forked tasks/s (isolation: fork) beside bare forks of the same process
	$(RUN) -m benchmarks.forks $(ARGS)

.PHONY: bench-django
bench-django: venv ## Measure no-op tasks/s of Django in warm executors beside one interpreter for each task
	$(RUN) -m benchmarks.django_tasks $(ARGS)

.PHONY: bench-memory
bench-memory: venv ## Measure the memory of a daemon by process, idle and after work, and of each executor of a Django project
	$(RUN) -m benchmarks.memory $(ARGS)

.PHONY: bench-scaling
bench-scaling: bench-venv ## Plot how a pool finds its size, for steps and bursts of sleeping and of computing tasks
	$(RUN) -m benchmarks.scaling $(ARGS)

.PHONY: bench-coexist
bench-coexist: venv ## Measure what it costs to provide for an older worker that works beside this program
	$(RUN) -m benchmarks.coexist $(ARGS)

.PHONY: bench-migrate
bench-migrate: venv ## Measure the migration of a million runs of each older layout, and how long producers wait meanwhile
	$(RUN) -m benchmarks.migrate $(ARGS)

.PHONY: huge
huge: export REPROQ_HUGE_ROWS = 1000000
huge: venv ## Check that a claim beside a million waiting and a million finished tasks touches few pages
	$(RUN) -m pytest tests/store/test_huge.py $(ARGS)

.PHONY: bench-keys
bench-keys: venv ## Measure tasks/s over many keys and few hot ones beside tasks without keys
	$(RUN) -m benchmarks.keys $(ARGS)

.PHONY: churn
churn: export REPROQ_CHURN_TASKS = 10000
churn: venv ## Run 10,000 tasks in a fork each, and check that no zombie and no descriptor is left
	$(RUN) -m pytest tests/process/test_nursery_churn.py -k forked_tasks $(ARGS)

.PHONY: coexist
coexist: export REPROQ_COEXIST_RUNS = 4000
coexist: venv ## Let eight older workers and four shards share 4,000 runs, cut their connections, and check that nothing runs twice
	$(RUN) -m pytest tests/store/test_coexist_concurrency.py $(ARGS)

.PHONY: soak
soak: venv soak-torture soak-model soak-beat ## Kill, freeze and reload at random while tasks run, and check that none is lost
	$(RUN) -m benchmarks.soak $(ARGS)

.PHONY: soak-torture
soak-torture: venv ## Run torture ten times, each with 20,000 tasks and its daemon's processes killed at random
	for seed in 1 2 3 4 5 6 7 8 9 10; do \
		$(RUN) -P -m reproq_supervisor torture --private --chaos-database --count 20000 --timeout 15m --seed $$seed || exit 1; \
	done

.PHONY: soak-model
soak-model: export REPROQ_MODEL_EXAMPLES ?= 20000
soak-model: export REPROQ_MODEL_SEED ?= $(shell date +%s)
soak-model: venv ## Compare the store with its rules in plain Python over 20,000 random histories, in JOBS processes
	@echo "seeds from $$REPROQ_MODEL_SEED on, one for each hundred histories"
	$(PYTEST) -v tests/store/test_model.py $(ARGS)

.PHONY: soak-beat
soak-beat: export REPROQ_FIGHT_S = 300
soak-beat: venv ## Let three keepers fire 200 schedules a second for five minutes while they and the database are killed
	$(RUN) -m pytest tests/process/test_keeper_beat.py -k three_keepers -rP $(ARGS)

.PHONY: docs
docs docs-serve: export NO_MKDOCS_2_WARNING = 1
docs: manual-venv ## Build the manual into site/; a dead link or a page that nothing leads to is an error
	$(RUN) -m mkdocs build --strict

.PHONY: docs-serve
docs-serve: manual-venv ## Show the manual on http://127.0.0.1:8000, anew with every change
	$(RUN) -m mkdocs serve

.PHONY: manual-venv
manual-venv:
	@$(PYTHON) .ci/venv.py "$(VENV)" docs

.PHONY: bench-venv
bench-venv:
	@$(PYTHON) .ci/venv.py "$(VENV)" embedded dev bench

.PHONY: format
format: venv ## Format the source, and mend what lint can mend
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

.PHONY: venv
venv: ## Make or refresh the virtual environment for development
	@$(PYTHON) .ci/venv.py "$(VENV)" embedded dev

.PHONY: runtime
runtime:
	@$(PYTHON) .ci/venv.py "$(VENV)" embedded

.PHONY: clean
clean: ## Remove everything that was made here: environments, caches, the embedded databases
	rm -rf .venv .venv-* .venv*.lock .reproq build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
