# The front door. The extension's own build is extension/Makefile (PGXS).

PG_CONFIG = pg_config
PYTHON = .venv/bin/python
# sudo where the server's extension directory is not ours to write.
SUDO = $(shell test -w "$$($(PG_CONFIG) --sharedir)/extension" || echo sudo)
export PG_CONFIG

.DEFAULT_GOAL = help
.PHONY: help demo test test-other test-deployment lint build install uninstall bench bootstrap lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: bootstrap ## Show the extension at work on a throw-away cluster
	$(MAKE) --no-print-directory install
	$(PYTHON) -m devtools demo

test: bootstrap ## Run every test on this machine's PostgreSQL: pgTAP, then pytest
	$(MAKE) --no-print-directory install
	$(PYTHON) -m devtools pgtap
	$(PYTHON) -m pytest

test-other: bootstrap build ## Run every test on the other supported PostgreSQL, in a Debian root (needs root)
	$(PYTHON) -m devtools pgtap --other
	$(PYTHON) -m pytest --other

test-deployment: bootstrap build ## Test what takes more than one server: image, packages, the move between majors (needs root)
	$(PYTHON) -m pytest tests/deployment

lint: bootstrap ## Run ruff, mypy, sqlfluff and pgspot
	$(MAKE) --no-print-directory build
	$(PYTHON) -m devtools lint

build: ## Assemble the extension's scripts, extension/*.sql
	$(MAKE) -C extension all PG_CONFIG=$(PG_CONFIG)

install: build ## Install the extension into a server: make install PG_CONFIG=/path/to/pg_config
	$(SUDO) $(MAKE) -C extension install PG_CONFIG=$(PG_CONFIG)

uninstall: ## Remove the extension's files from the server
	$(SUDO) $(MAKE) -C extension uninstall PG_CONFIG=$(PG_CONFIG)

bench: ## Measure first build, idle run and busy run: make bench ARGS=--help
	devtools/bootstrap.sh bench
	$(MAKE) --no-print-directory install
	$(PYTHON) -m bench $(ARGS)

bootstrap: ## Install what is missing here: Debian packages and .venv
	@devtools/bootstrap.sh

lock: bootstrap ## Renew the pinned requirements
	devtools/lock.sh

clean: ## Remove what was built, and .venv
	$(MAKE) -C extension clean PG_CONFIG=$(PG_CONFIG)
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -r {} +
