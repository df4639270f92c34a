# The front door. The extension's own build is extension/Makefile (PGXS).

PG_CONFIG = pg_config
PYTHON = .venv/bin/python
# sudo where the server's extension directory is not ours to write.
SUDO = $(shell test -w "$$($(PG_CONFIG) --sharedir)/extension" || echo sudo)
BASE = postgres:17
# buildah where no docker daemon answers; in Docker's own format, because the OCI one has no place for a HEALTHCHECK.
BUILD_IMAGE = $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah bud --format docker)
export PG_CONFIG

.DEFAULT_GOAL = help
.PHONY: help demo test test-other test-deployment lint build install uninstall image bench bootstrap lock clean

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

test-deployment: ## Test what takes more than one server: image, packages, the move between majors (needs root)
	devtools/bootstrap.sh deployment
	$(MAKE) --no-print-directory build
	$(PYTHON) -m pytest tests/deployment

lint: bootstrap ## Run ruff, mypy, sqlfluff and pgspot
	$(MAKE) --no-print-directory build
	$(PYTHON) -m devtools lint

build: ## Assemble the extension script, extension/audius_challenges--1.0.0.sql
	$(MAKE) -C extension all PG_CONFIG=$(PG_CONFIG)

install: build ## Install the extension into a server: make install PG_CONFIG=/path/to/pg_config
	$(SUDO) $(MAKE) -C extension install PG_CONFIG=$(PG_CONFIG)

uninstall: ## Remove the extension's files from the server
	$(SUDO) $(MAKE) -C extension uninstall PG_CONFIG=$(PG_CONFIG)

image: ## Build the container image audius-challenges, by docker or buildah: make image BASE=postgres:17
	$(BUILD_IMAGE) --tag audius-challenges --build-arg BASE=$(BASE) .

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
