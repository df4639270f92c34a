"""Runs the pgTAP suite by pg_prove, on a throw-away cluster."""

import os
import subprocess
from pathlib import Path

from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, create_discovery, require_extension

SUITE = REPOSITORY / "tests" / "pgtap"
# The extension schedules itself, and a tick would take the lock from under a test: so pg_cron, which connects
# as any client does, is sent where no server listens.
SETTINGS = {"cron.host": "/nowhere"}


def run_pgtap(files: list[Path], root: Path | None, verbose: bool) -> int:
    """Runs the files (all of the suite if none is given) in one discovery database; pg_prove's exit code.

    ``root``: directory of another Debian whose server to use. Raises ClusterError, NotInstalledError.
    """
    scripts = files or sorted(SUITE.glob("*.sql"))
    with Cluster(root=root, settings=SETTINGS) as cluster:
        require_extension(cluster)
        database = create_discovery(cluster, "discovery")
        database.psql("CREATE EXTENSION pgtap", "CREATE EXTENSION pg_cron", CREATE_EXTENSION)
        print(f"pgTAP on PostgreSQL {cluster.major}", flush=True)
        command = ["pg_prove", "--dbname", database.name, "--failures", "--comments"]
        command += ["--verbose"] * verbose
        command += [os.path.relpath(script, REPOSITORY) for script in scripts]
        environment = cluster.environment()
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, check=False)
        return done.returncode
