# The front door. The extension's own build is extension/Makefile (PGXS).

PG_CONFIG ?= pg_config
PYTHON = .venv/bin/python
# A process for each processor, each with clusters of its own. Those that are through take tests from the others.
PYTEST = $(PYTHON) -m pytest --numprocesses=auto --dist=worksteal
# sudo where the server's extension directory is not ours to write, and nothing is to be staged in DESTDIR.
SUDO = $(if $(DESTDIR),,$(shell test -w "$$($(PG_CONFIG) --sharedir)/extension" || echo sudo))
CAN_INSTALL = test -z "$(SUDO)" || command -v sudo >/dev/null || { echo "make $@: the server's extension directory is not \
	writable here, and there is no sudo; run it as root" >&2; exit 1; }
VERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" extension/audius_challenges.control)
ARCHIVE = audius_challenges-$(VERSION)
CHECK_DATABASE = audius_challenges_check
BASE = postgres:17
# Those that `make test` does not test here.
MAJOR = $(filter-out $(shell $(PG_CONFIG) --version | grep -Eo '[0-9]+' | head -n 1),$(shell grep -v '^\#' debian/pgversions))
# buildah where no docker daemon answers; in Docker's own format, because the OCI one has no place for a HEALTHCHECK.
BUILD_IMAGE = $(shell docker info >/dev/null 2>&1 && echo docker build || echo buildah bud --format docker)
export PG_CONFIG

.DEFAULT_GOAL = help
.PHONY: help demo test test-other test-deployment lint all build install uninstall installcheck dist deb image bench \
	bench-nodes pictures bootstrap lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Show the extension at work on a throw-away cluster
	@devtools/bootstrap.sh
	$(MAKE) --no-print-directory install
	$(PYTHON) -m devtools demo

test: bootstrap ## Run every test on this machine's PostgreSQL: pgTAP, then pytest (a quarter of an hour)
	$(MAKE) --no-print-directory install
	$(PYTHON) -m devtools pgtap
	$(PYTEST)

# 50 of the model's 150 histories show as much of a version.
test-other: export AUDIUS_CHALLENGES_MODEL_HISTORIES ?= 50
test-other: bootstrap build ## Run those that use a server on the other versions, or on one: make test-other MAJOR=18 (needs root)
	$(foreach major,$(MAJOR),$(PYTHON) -m devtools pgtap --major $(major) && $(PYTEST) --major $(major) &&) true

test-deployment: ## Test what takes more than one server: image, packages, the move between majors (needs root)
	devtools/bootstrap.sh deployment
	$(MAKE) --no-print-directory install
	$(PYTEST) --dist=loadfile tests/deployment

lint: bootstrap ## Run ruff, mypy, sqlfluff and pgspot
	$(MAKE) --no-print-directory build
	$(PYTHON) -m devtools lint

all: build # what `pgxn install` calls first

build: ## Assemble the extension's scripts, extension/*.sql
	$(MAKE) -C extension all PG_CONFIG=$(PG_CONFIG)

install: build ## Install the extension into a server: make install PG_CONFIG=/path/to/pg_config
	@$(CAN_INSTALL)
	$(SUDO) $(MAKE) -C extension install PG_CONFIG=$(PG_CONFIG)

uninstall: ## Remove the extension's files from the server
	@$(CAN_INSTALL)
	$(SUDO) $(MAKE) -C extension uninstall PG_CONFIG=$(PG_CONFIG)

installcheck: ## Try an installed extension by psql and pg_prove, on the server that PGHOST, PGPORT, PGUSER name
	dropdb --if-exists $(CHECK_DATABASE)
	createdb $(CHECK_DATABASE)
	psql -Xq -v ON_ERROR_STOP=1 -d $(CHECK_DATABASE) -f discovery/schema.sql -f discovery/builders.sql \
		-c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION audius_challenges CASCADE'
	PGOPTIONS='-c client_min_messages=warning' \
		pg_prove -d $(CHECK_DATABASE) tests/challenges/*.sql tests/pgtap/05_*.sql tests/pgtap/30_*.sql
	dropdb $(CHECK_DATABASE)

dist: ## Make the release archive of the last commit, for PGXN: dist/audius_challenges-VERSION.zip
	mkdir -p dist
	git archive --format=zip --prefix=$(ARCHIVE)/ --output=dist/$(ARCHIVE).zip HEAD

deb: ## Build the Debian package, into dist/: needs dpkg-dev, debhelper, postgresql-server-dev-all
	pg_buildext updatecontrol
	dpkg-buildpackage --build=binary --no-sign
	mkdir -p dist
	mv ../postgresql-*-audius-challenges_$(VERSION)_all.deb dist/
	rm ../audius-challenges_$(VERSION)_*.buildinfo ../audius-challenges_$(VERSION)_*.changes

image: ## Build the container image audius-challenges, by docker or buildah: make image BASE=postgres:17
	$(BUILD_IMAGE) --tag audius-challenges --build-arg BASE=$(BASE) .

bench: ## Measure what it costs, beside the alternatives: make bench, make bench SCALE=1
	devtools/bootstrap.sh bench
	$(MAKE) --no-print-directory install
	$(PYTHON) -m bench $(ARGS)

bench-nodes: ## Measure shares, 1, 2 and 4 nodes beside one server: make bench-nodes SCALE=0.02
	devtools/bootstrap.sh bench
	$(MAKE) --no-print-directory install
	$(PYTHON) -m bench nodes $(ARGS)

pictures: bootstrap ## Make the pictures of docs/ anew, from a real run of some minutes
	$(MAKE) --no-print-directory install
	$(PYTHON) -m devtools pictures

bootstrap: ## Install what is missing here: Debian packages and .venv
	@devtools/bootstrap.sh tests

lock: bootstrap ## Renew the pinned requirements
	devtools/lock.sh

clean: ## Remove what was built, and .venv
	$(MAKE) -C extension clean PG_CONFIG=$(PG_CONFIG)
	rm -rf dist .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -r {} +
