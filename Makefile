# What a person types. Works with GNU Make 3.81, which macOS ships, and needs nothing
# but a Python of 3.11 or newer. `make help` lists the targets.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

VENV := .venv
PY := $(VENV)/bin/python
PORT ?= 8000
MIEN_HOME ?= $(CURDIR)/var
# The Python that builds the virtual environment; found where it is not named.
PYTHON ?=
CUT_SECONDS ?= 60
# More words for pytest, as in: make test ARGS="-k lease -x"
ARGS ?=

# What a check needs of an instance: nothing that anybody serves.
CHECK_HOME := $(CURDIR)/build/check
CHECK_ENV := MIEN_DEMO=0 MIEN_DEBUG=0 MIEN_HOME="$$CHECK_HOME" \
	MIEN_SECRET_KEY=a-key-for-checks-alone-0123456789-abcdefghijklmnopqrstuvwxyz
TYPED := ml webapp benchmarks conftest.py manage.py

# By the environment, for a shell would read what stands in a path: it may hold a quote.
run prod-local: export PORT := $(PORT)
run: export MIEN_HOME := $(MIEN_HOME)
venv: export PYTHON := $(PYTHON)
venv: export VENV := $(VENV)
cut: export CUT_SECONDS := $(CUT_SECONDS)
types migrations deploy check-home: export CHECK_HOME := $(CHECK_HOME)

.PHONY: help
help: ## List the targets
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' Makefile

# --- Run --------------------------------------------------------------------------

.PHONY: run
run: venv ## Start everything: the site at http://127.0.0.1:PORT/ (PORT=, MIEN_HOME=)
	@# Ctrl-C belongs to the supervisor, from its first instruction on.
	@trap '' INT; exec $(PY) -m webapp.config.embedded

.PHONY: prod-local
prod-local: venv ## Production's processes here: PostgreSQL, Redis, S3 stand-in (PORT=)
	@trap '' INT; exec $(PY) -m tests.production

.PHONY: venv
venv: ## Make .venv and install what requirements.txt pins, where that has changed
	@sh scripts/venv.sh

# --- Check ------------------------------------------------------------------------

.PHONY: check
check: lint format types imports migrations deploy packages ## All checks below

.PHONY: lint
lint: venv ## Ruff's rules
	@echo "== lint"; $(PY) -m ruff check .

.PHONY: format
format: venv ## Ruff's format, checked
	@echo "== format"; $(PY) -m ruff format --check .

.PHONY: types
types: venv check-home ## mypy, strict
	@echo "== types"; $(CHECK_ENV) $(PY) -m mypy $(TYPED)

.PHONY: imports
imports: venv ## Imports point one way
	@echo "== imports"; $(VENV)/bin/lint-imports --no-logo

.PHONY: migrations
migrations: venv check-home ## No model without its migration
	@echo "== migrations"; $(CHECK_ENV) $(PY) manage.py makemigrations --check --dry-run

.PHONY: deploy
deploy: venv check-home ## Django's checks for a public site
	@echo "== deploy"; $(CHECK_ENV) MIEN_ALLOWED_HOSTS=mien.example \
		MIEN_DATABASE_URL=postgres://mien:secret@db/mien MIEN_NUM_PROXIES=1 \
		MIEN_BROKER_URL=redis://:secret@broker/0 MIEN_BEHIND_TLS_PROXY=1 \
		MIEN_STORAGE_URL=s3://key:secret@store/mien MIEN_METRICS_TOKEN=token \
		$(PY) manage.py check --deploy --fail-level WARNING

.PHONY: packages
packages: venv ## What is installed fits together
	@echo "== packages"; $(PY) -m pip check

.PHONY: check-home
check-home:
	@mkdir -p "$$CHECK_HOME"

# --- Test and measure -------------------------------------------------------------

# Tests keep to themselves, so the cores share them file by file, the long ones of
# tests/ first. What measures time has the machine for itself.
ON_ALL_CORES := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: test
test: venv browser ## All tests, on SQLite and Valkey (ARGS= for pytest)
ifeq ($(strip $(ARGS)),)
	$(PY) -m pytest $(ON_ALL_CORES) -m 'not timed' tests webapp ml
	$(PY) -m pytest -m timed tests webapp ml
else
	$(PY) -m pytest $(ARGS)
endif

.PHONY: test-services
test-services: venv ## The site's tests on PostgreSQL and Redis, started for them (ARGS=)
ifeq ($(strip $(ARGS)),)
	@# The same on each database, and so left out: what a gate computes, a page shows,
	@# a disk or a network does, a variable may say, and how a network is trained; who
	@# may do what, whose queries webapp's tests ask, too.
	$(PY) -m tests.services $(PY) -m pytest $(ON_ALL_CORES) -m 'not timed' \
		tests/test_bad_input.py tests/test_fuzz.py tests/test_upgrades.py webapp \
		--ignore=webapp/training/tests/test_gate.py \
		--ignore=webapp/training/tests/test_full.py \
		--ignore=webapp/config/tests/test_env.py
	$(PY) -m tests.services $(PY) -m pytest -m timed tests/test_chaos.py \
		tests/test_training_loop.py -k 'workers or broker or locked or sixty'
	KILLS=5 $(PY) -m tests.services $(PY) -m pytest tests/test_training_loop.py -k kills
else
	$(PY) -m tests.services $(PY) -m pytest $(ON_ALL_CORES) -m 'not timed' $(ARGS)
endif

.PHONY: cut
cut: venv ## A worker host cut off for a minute, beside two others (CUT_SECONDS=)
	$(PY) -m pytest -s tests/test_hosts.py $(ARGS)

.PHONY: fuzz
fuzz: venv ## 5,000 requests from the API's description, 20,000 changed photos
	FUZZ_API_CASES=5000 FUZZ_INTAKE_CASES=20000 $(PY) -m pytest tests/test_fuzz.py $(ARGS)

.PHONY: chaos
chaos: venv ## Kill, lock, fill and hang what can be (SCENARIO=workers COUNT=2000)
	$(PY) -m tests.chaos $(or $(SCENARIO),all) $(if $(COUNT),--count $(COUNT)) $(ARGS)

.PHONY: load
load: venv ## Half of what the site bears, three times of it, its memory (ARGS=)
	$(PY) -m benchmarks.load $(ARGS)

.PHONY: bench-servers
bench-servers: venv ## Photos a second, beside bare FastAPI and LitServe (ARGS=--write)
	$(PY) -m pip install --quiet --upgrade --target build/bench-packages \
		-r benchmarks/requirements.txt
	PYTHONPATH=build/bench-packages $(PY) -m benchmarks.throughput $(ARGS)

.PHONY: pictures
pictures: venv browser ## Take the pictures of the documents anew
	$(PY) -m tests.browser.pictures
	PICTURES=1 $(PY) -m pytest tests/browser/test_pages.py tests/browser/test_training.py \
		-k 'every_page_is_for_everybody or from_an_empty_site'

.PHONY: browser
browser: venv
	@$(PY) -m tests.installing

.PHONY: bench
bench: venv ## How long a photo takes, beside the networks alone (ARGS=--write)
	$(PY) -m benchmarks.latency $(ARGS)

# --- Deploy -----------------------------------------------------------------------

.PHONY: secrets
secrets: ## Draw the secrets of compose.yaml that are missing, into deploy/secrets
	@$${PYTHON:-python3} deploy/draw_secrets.py

.PHONY: lock
lock: venv ## Write the images' requirements with hashes, from requirements.txt
	$(PY) deploy/lock.py

.PHONY: audit
audit: venv ## Ask for known weaknesses of what the images hold (needs the network)
	@$(PY) deploy/audit.py

# --- Tidy -------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove .venv and caches, never var/
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -path ./var -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
