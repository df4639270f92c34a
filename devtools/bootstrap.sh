#!/bin/sh
# Installs what building, testing and the demo need and this machine lacks: Debian packages (by apt, with sudo unless
# root) and .venv with the pinned Python tools. Prints each command that it runs; runs none when all is there.
#
#   devtools/bootstrap.sh               for the build and the demo
#   devtools/bootstrap.sh tests         the same and what the tests, lint and pictures need, a browser among it
#   devtools/bootstrap.sh bench         the same as tests and what the benchmarks' charts need
#   devtools/bootstrap.sh deployment    the same as tests and what building and reading the container image needs, and
#                                       monitoring
set -eu
cd "$(dirname "$0")/.."

run() {
    echo "+ $*"
    "$@"
}

fail() {
    echo "bootstrap: $*" >&2
    exit 1
}

install_packages() {
    # shellcheck source=/dev/null
    system=$(. /etc/os-release 2>/dev/null && echo "${ID:-}-${VERSION_ID:-}") || system=unknown
    case $system in
        debian-12) major=15 ;;
        debian-13) major=17 ;;
        *) fail "this is $system; only Debian 12 and 13 are known. On another system install by hand what
install_packages in devtools/bootstrap.sh lists, then set CHALLENGES_SKIP_APT=1." ;;
    esac
    missing=
    tests=
    deployment=
    [ -z "$1" ] || tests="postgresql-$major-pgtap libtap-parser-sourcehandler-pgtap-perl chromium fonts-dejavu-core
        mmdebstrap mount iproute2"
    [ "$1" != deployment ] || deployment='buildah docker-compose prometheus prometheus-postgres-exporter'
    for package in \
        "postgresql-$major" "postgresql-plpython3-$major" "postgresql-$major-cron" "postgresql-server-dev-$major" \
        make python3-venv $tests $deployment; do
        status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || status=absent
        [ "$status" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0

    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "neither root nor sudo here; as root: apt-get install$missing"
        sudo=sudo
    fi
    run $sudo apt-get update --quiet || echo "bootstrap: apt-get update failed; trying with the lists there are" >&2
    # shellcheck disable=SC2086
    run $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --quiet --no-install-recommends $missing </dev/null
}

up_to_date() {
    [ -x .venv/bin/python ] && sha256sum --check --status ".venv/$1.sha256" 2>/dev/null
}

# The pinned requirements of one file, into .venv. A stamp with the file's hash makes the next run quick.
install_requirements() {
    run .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$1"
    sha256sum "$1" >".venv/$1.sha256"
}

case ${1:-} in
    '' | tests | bench | deployment) ;;
    *) fail "there is no $1; possible are tests, bench and deployment" ;;
esac
[ -n "${CHALLENGES_SKIP_APT:-}" ] || install_packages "${1:-}"
if ! up_to_date requirements.txt; then
    # Debian's Python, not one that happens to come first in PATH: it is the one PL/Python is built with.
    run /usr/bin/python3 -m venv --clear .venv
    install_requirements requirements.txt
fi
if ! sha256sum --check --status .venv/command.sha256 2>/dev/null; then
    # The command audius-challenges, as it is here: a change of its code needs no new installation.
    run .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable python
    sha256sum python/pyproject.toml requirements.txt >.venv/command.sha256
fi
if [ "${1:-}" = bench ] && ! up_to_date requirements-bench.txt; then
    install_requirements requirements-bench.txt
fi
