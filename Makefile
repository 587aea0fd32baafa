# Each target does all of its own set-up in .venv, and finds it done the second time.

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $(name))))
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_MODULES := $(patsubst %,tests/%/node_modules/.package-lock.json,clients dashboards playground)
SOURCES := benchmarks dashboards models service tests training triptych worker

.PHONY: serve observe test check fix openapi dashboards up

serve: $(STAMP)
	@exec $(RUN)/triptych serve

# With Prometheus and Grafana, those of the two that are installed.
observe: $(STAMP)
	@exec $(RUN)/triptych serve --observe

# Says which tests were skipped, and what they miss. Several test processes and the workers that they
# start share the cores: a thread that spins while it waits would take the time of another's work. The
# services that they start take it as the operator's word, instead of a spin count of their own.
test: $(STAMP) $(NODE_MODULES)
	OMP_WAIT_POLICY=PASSIVE $(RUN)/python -m pytest -rs --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(STAMP)
	$(RUN)/ruff format --check $(SOURCES)
	$(RUN)/ruff check $(SOURCES)
	$(RUN)/mypy

fix: $(STAMP)
	$(RUN)/ruff check --fix $(SOURCES)
	$(RUN)/ruff format $(SOURCES)

openapi: $(STAMP)
	$(RUN)/python -m service.openapi

dashboards: $(STAMP)
	$(RUN)/python -m dashboards

up:
	docker compose --profile gpu up --build

# The project's own metadata is installed without its dependencies: the lock names them all.
$(STAMP): requirements.lock pyproject.toml
	$(if $(PYTHON),,$(error Python 3.11 or newer is needed; set PYTHON=/path/to/python))
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --requirement requirements.lock
	$(RUN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# OpenAI's client for Node, which tests/clients drives, Grafana's schema, which tests/dashboards asks,
# and what tests/playground looks at pages and scripts with; npm came into .venv with the wheel of
# Node. Where npm's registry is out of reach, those tests are skipped, and say so.
tests/%/node_modules/.package-lock.json: tests/%/package-lock.json | $(STAMP)
	-PATH="$(CURDIR)/$(RUN):$$PATH" npm ci --prefix tests/$* --no-audit --no-fund --loglevel=error \
		&& touch $@
