#!/bin/bash
# Fills a new cluster of the image with the discovery schema and sample data: for /docker-entrypoint-initdb.d, with this
# directory at /discovery. SCALE, SEED and TODAY are the variables of generate.sql.
set -euo pipefail

export PGUSER=$POSTGRES_USER PGDATABASE=$POSTGRES_DB
variables=(--set=ON_ERROR_STOP=1 --set=scale="${SCALE:-0.001}" --set=seed="${SEED:-1}")
[ -z "${TODAY:-}" ] || variables+=(--set=today="$TODAY")
psql --no-psqlrc --quiet "${variables[@]}" --file=/discovery/schema.sql --file=/discovery/generate.sql
