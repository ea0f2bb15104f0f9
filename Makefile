# One command per need; each installs what it needs first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
HOST ?= 127.0.0.1

.PHONY: help install demo serve worker stop test check fix bench lock

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(VENV)/.web ## the virtual environment with what the product needs

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"

$(VENV)/.web: requirements/gpu.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements/gpu.lock
	@touch $@

$(VENV)/.dev: requirements/dev.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements/dev.lock
	@touch $@ $(VENV)/.web

demo: install ## everything: install, start, load the demo set, run the loop once, serve on PORT
	$(BIN)/python manage.py demo --host $(HOST) --port $(PORT)

serve: install ## the web process only, on PORT
	$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python manage.py collectstatic --noinput --verbosity 0
	BIND=$(HOST):$(PORT) $(BIN)/python -m gunicorn -c annotator/gunicorn_conf.py annotator.wsgi

worker: install ## the workers of all queues, training included
	$(BIN)/python -m annotator.supervisor

stop: ## stop the embedded PostgreSQL and Redis
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m annotator.embedded stop; fi

test: $(VENV)/.dev ## every test
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.dev ## lint, types, import contracts, templates, migrations, lock files
	@PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python tests/check.py

fix: $(VENV)/.dev ## repair what machines can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	-$(BIN)/djade --target-version 5.2 $$(git ls-files 'templates/*.html')

bench: $(VENV)/.dev ## measured figures, as one table
	$(BIN)/python -m tests.bench

lock: $(BIN)/python ## resolve pyproject.toml into requirements/*.lock
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/python tests/lock.py
