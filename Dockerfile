# The official PostgreSQL image with pg_cron, PL/Python and audius_challenges; docs/how-to/run-the-image.md says how to
# run it. BASE is an image of the official kind, for PostgreSQL 15, 17 or 18.
ARG BASE=postgres:17

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make python3 "postgresql-server-dev-$PG_MAJOR"
COPY extension /source/extension
COPY sql /source/sql
COPY python /source/python
RUN make -C /source/extension clean install DESTDIR=/built PG_CONFIG="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config"

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        "postgresql-$PG_MAJOR-cron" "postgresql-plpython3-$PG_MAJOR" \
    && rm -rf /var/lib/apt/lists/*
# In the sample, so that initdb gives these to every new cluster. pg_cron's jobs as background workers need no
# password and no line in pg_hba.conf, but room beside max_parallel_workers (8).
RUN printf '%s\n' '' '# audius_challenges' \
        "shared_preload_libraries = 'pg_cron'" \
        'cron.use_background_workers = on' \
        'max_worker_processes = 16' \
        >>"/usr/share/postgresql/$PG_MAJOR/postgresql.conf.sample"
COPY --from=build /built/ /
COPY image/initdb.d/ /docker-entrypoint-initdb.d/
COPY image/audius-challenges-health /usr/local/bin/
HEALTHCHECK --interval=30s --timeout=15s --start-period=5m --retries=3 CMD ["audius-challenges-health"]
