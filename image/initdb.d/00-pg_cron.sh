#!/bin/bash
# First of the image's two steps when a cluster is made: pg_cron, in the database that the environment names.
#
# pg_cron lives in one database, and the server reads at its start which that is. The entrypoint's temporary server is
# therefore restarted, with the arguments that it has. Dumps come after this step, because they may hold pg_cron's jobs.
set -euo pipefail

fail() {
    printf 'audius_challenges: %s\n' "$@" >&2
    exit 1
}

query() {
    PGHOST='' PGHOSTADDR='' PGUSER=$POSTGRES_USER PGDATABASE=$POSTGRES_DB \
        psql --no-psqlrc --no-password --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1
}

restart() {
    local arguments
    # As they are, and not by `pg_ctl restart`, which would let a shell see quotes and dollars in them.
    mapfile -d '' -t arguments <"/proc/$(head -n 1 "$PGDATA/postmaster.pid")/cmdline"
    pg_ctl --silent --wait --pgdata="$PGDATA" stop
    NOTIFY_SOCKET='' pg_ctl --silent --wait --pgdata="$PGDATA" --options="$(printf '%q ' "${arguments[@]:1}")" start
}

home_is_here() {
    [ "$(query <<<"SELECT current_setting('cron.database_name') = current_database()")" = t ]
}

if [ "$(query <<<"SELECT current_setting('shared_preload_libraries') LIKE '%pg_cron%'")" != t ]; then
    fail "shared_preload_libraries has no pg_cron, so nothing would ever tick." \
        "The image has set it; your command line or configuration file sets it otherwise. Add pg_cron to it there."
fi
if ! home_is_here; then
    query <<'SQL'
\getenv database POSTGRES_DB
ALTER SYSTEM SET cron.database_name = :'database';
SQL
    restart
    home_is_here || fail "cron.database_name is not the database of POSTGRES_DB, $POSTGRES_DB." \
        "Your command line sets it otherwise. Leave it out: it follows POSTGRES_DB."
fi
query <<<'CREATE EXTENSION IF NOT EXISTS pg_cron'
