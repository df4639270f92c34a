"""What the tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.cli.terminal import PEOPLE, QUALIFY, RECONCILE


@pytest.fixture(scope="session")
def paid(cluster: Cluster, full_template: str) -> Iterator[Discovery]:
    """A database in which users 1 and 2 have been paid for u, and user 4 for fp; no test changes it."""
    cluster.create_database("command", full_template)
    database = Discovery(cluster, "command")
    database.psql(PEOPLE, QUALIFY, RECONCILE)
    yield database
    cluster.drop_database("command")


@pytest.fixture
def failing(discovery: Discovery) -> Discovery:
    """A database in which c fails, for want of a column."""
    discovery.psql("ALTER TABLE comments RENAME COLUMN is_visible TO can_be_seen", RECONCILE)
    return discovery
