"""Discovery databases for tests and benchmarks, and what they need to be there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from devtools import REPOSITORY
from devtools.cluster import NO_SETTINGS, Cluster

SCHEMA = REPOSITORY / "discovery" / "schema.sql"
BUILDERS = REPOSITORY / "discovery" / "builders.sql"
RUNNER = REPOSITORY / "discovery" / "runner.sql"
SCRIPTS = ("audius_challenges--*.sql", "releases/audius_challenges--*.sql")
CREATE_EXTENSION = "CREATE EXTENSION audius_challenges CASCADE"


class NotInstalledError(RuntimeError):
    """The server does not have the extension as it was built last; the message says what to do."""


@dataclass(frozen=True)
class Discovery:
    """A database with the discovery schema and the builders, on a throw-away cluster."""

    cluster: Cluster
    name: str

    def connect(self, user: str = "postgres", autocommit: bool = True) -> psycopg.Connection[Any]:
        """A new connection; the caller closes it."""
        return self.cluster.connect(self.name, user, autocommit)

    def dsn(self, user: str = "postgres") -> str:
        """Connection string."""
        return self.cluster.dsn(self.name, user)

    def psql(self, *sources: Path | str, variables: Mapping[str, str] = NO_SETTINGS, user: str = "postgres") -> str:
        """Runs files and statements by psql; returns what they printed (see `Cluster.psql`)."""
        return self.cluster.psql(self.name, *sources, variables=variables, user=user)


def create_discovery(cluster: Cluster, name: str) -> Discovery:
    """A new database with the discovery schema and the builders, without the extension."""
    cluster.create_database(name)
    database = Discovery(cluster, name)
    database.psql(SCHEMA, BUILDERS)
    return database


def require_extension(cluster: Cluster) -> None:
    """Raises NotInstalledError unless the cluster's server has the extension, in the build of this
    repository."""
    shared = Path(cluster.run("pg_config", "--sharedir").stdout.strip())
    if cluster.root:
        shared = cluster.root / shared.relative_to("/")
    built_or_kept = (path for pattern in SCRIPTS for path in (REPOSITORY / "extension").glob(pattern))
    for built in sorted(built_or_kept):
        installed = shared / "extension" / built.name
        if not installed.exists() or installed.read_bytes() != built.read_bytes():
            raise NotInstalledError(f"{installed} is missing or another build: run `make install` first")
    if not (shared / "extension" / "audius_challenges.control").exists():
        raise NotInstalledError(f"no audius_challenges.control in {shared}/extension: run `make install` first")
