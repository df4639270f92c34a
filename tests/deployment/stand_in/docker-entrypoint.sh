#!/bin/bash
# The stand-in's entrypoint: what the documentation of the official image promises, and the order in which that does it.
# As root it becomes postgres. An empty PGDATA is made into a cluster, and /docker-entrypoint-initdb.d is run on a
# temporary server that has the user's arguments and listens on its socket alone. Then the command takes its place.
set -Eeo pipefail

# from_file_or NAME DEFAULT: exports NAME, from itself, from the file that NAME_FILE names, or as the default.
from_file_or() {
    local file=$1_FILE value=${!1:-}
    if [ -z "$value" ] && [ -n "${!file:-}" ]; then
        value=$(<"${!file}")
    fi
    export "$1"="${value:-$2}"
    unset "$file"
}

run_sql() {
    PGHOST='' PGHOSTADDR='' psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --no-password --no-psqlrc "$@"
}

make_cluster() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "POSTGRES_PASSWORD is empty" >&2
        exit 1
    fi
    eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(echo \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption)}" \
        >>"$PGDATA/pg_hba.conf"
}

start_temporary_server() {
    [ "$1" != postgres ] || shift
    set -- "$@" -c listen_addresses='' -p "${PGPORT:-5432}"
    NOTIFY_SOCKET='' PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl -D "$PGDATA" -o "$(printf '%q ' "$@")" -w start
}

create_database() {
    if [ "$POSTGRES_DB" != postgres ]; then
        run_sql --dbname=postgres --set=db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
    fi
}

run_init_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        echo "$0: $script"
        case $script in
            *.sh) # shellcheck source=/dev/null
                if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
            *.sql) run_sql --dbname="$POSTGRES_DB" --file="$script" ;;
            *.sql.gz) gunzip --stdout "$script" | run_sql --dbname="$POSTGRES_DB" ;;
            *) echo "$0: ignored" ;;
        esac
    done
}

stop_temporary_server() {
    PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl -D "$PGDATA" -m fast -w stop
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA" /var/run/postgresql
        chmod 700 "$PGDATA"
        chown -R postgres "$PGDATA" /var/run/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups "${BASH_SOURCE[0]}" "$@"
    fi
    from_file_or POSTGRES_PASSWORD ''
    from_file_or POSTGRES_USER postgres
    from_file_or POSTGRES_DB "$POSTGRES_USER"
    from_file_or POSTGRES_INITDB_ARGS ''
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        make_cluster
        export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
        start_temporary_server "$@"
        create_database
        run_init_scripts
        stop_temporary_server
        unset PGPASSWORD
    fi
fi
exec "$@"
