"""Runs the pgTAP suite by pg_prove, on a throw-away cluster, as a superuser and as a role with least privilege."""

import os
import subprocess
import sys
from pathlib import Path

from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, RUNNER, Discovery, create_discovery, require_extension

# The rules of each challenge; what holds for all of them, and the interface.
SUITE = (REPOSITORY / "tests" / "challenges", REPOSITORY / "tests" / "pgtap")
# The extension schedules itself, and a tick would take the lock from under a test: so pg_cron, which connects
# as any client does, is sent where no server listens.
SETTINGS = {"cron.host": "/nowhere"}

# pg_cron connects within a second after its database was created; until then nothing ticks, and the status says so.
LAUNCHER = """
    DO $block$
    BEGIN
        FOR tenth IN 1..300 LOOP
            PERFORM pg_stat_clear_snapshot();
            EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher');
            PERFORM pg_sleep(0.1);
        END LOOP;
    END $block$
"""

# What is about things that only an owner or a superuser does: roles, renamed tables, DROP EXTENSION, pg_cron's tables.
FOR_THE_OWNER = {"04_bad_input.sql", "07_installation.sql", "22_least_privilege.sql", "23_schedule.sql"}


def run_pgtap(files: list[Path], root: Path | None, verbose: bool) -> int:
    """Runs the files (all of the suite if none is given) in one discovery database, as a superuser; then again, but
    those in FOR_THE_OWNER, as a role that has `grant_run` alone. pg_prove's exit code, 0 if both passed.

    ``root``: directory of another Debian whose server to use. Raises ClusterError, NotInstalledError.
    """
    scripts = files or [script for directory in SUITE for script in sorted(directory.glob("*.sql"))]
    with Cluster(root=root, settings=SETTINGS) as cluster:
        require_extension(cluster)
        database = create_discovery(cluster, "discovery")
        database.psql("CREATE EXTENSION pgtap", "CREATE EXTENSION pg_cron", CREATE_EXTENSION)
        database.psql(LAUNCHER)
        print(f"pgTAP on PostgreSQL {cluster.major}", flush=True)
        code = _prove(database, scripts, verbose)

        of_a_run = [script for script in scripts if script.name not in FOR_THE_OWNER]
        if of_a_run:
            database.psql(RUNNER)
            print(f"pgTAP on PostgreSQL {cluster.major}, as a role with grant_run alone", flush=True)
            code = _prove(database, of_a_run, verbose, role="challenge_runner") or code
        return code


def _prove(database: Discovery, scripts: list[Path], verbose: bool, role: str = "none") -> int:
    # With the role as an option of the connection, RESET ROLE brings it back after SET LOCAL ROLE NONE, by which a
    # test does what takes the owner of a table. Notices say nothing that a test has not asserted.
    options = f"-c role={role} -c client_min_messages=warning"
    environment = database.cluster.environment() | {"PGOPTIONS": options}
    command = ["pg_prove", "--dbname", database.name, "--failures", "--comments"]
    command += ["--verbose"] * verbose
    command += [os.path.relpath(script, REPOSITORY) for script in scripts]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        # CREATE EXTENSION tells its notices whatever the setting is; they matter where something has failed.
        stderr=None if verbose else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode and done.stderr:
        print(done.stderr, file=sys.stderr, flush=True)
    return done.returncode
