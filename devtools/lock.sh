#!/bin/sh
# Renews the pinned requirements, for every Python and platform at once.
set -eu
cd "$(dirname "$0")/.."

.venv/bin/python -m pip install --quiet --disable-pip-version-check uv

compile() {
    .venv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --upgrade \
        --custom-compile-command 'make lock' "$@"
}

# With what the command asks for: python/pyproject.toml.
compile --group dev --output-file requirements.txt pyproject.toml python/pyproject.toml
compile --group bench --constraint requirements.txt --output-file requirements-bench.txt pyproject.toml
