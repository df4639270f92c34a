"""The how-to pages of shares work as written: their commands, typed at the consoles of a primary and its nodes.

The other pages begin where scale-out.md ends, so it is followed first.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, SCHEMA, require_extension
from tests.consoles import Machine, Network

pytestmark = pytest.mark.one_version

HOW_TO = REPOSITORY / "docs" / "how-to"
SCALE_OUT = HOW_TO / "scale-out.md"
PAGES = {
    "change-the-number-of-shares.md",
    "change-the-schema-of-shares.md",
    "lose-a-node.md",
}
ADDRESSES = {
    "primary": "10.0.0.10",
    "standby": "10.0.0.11",
    "node0": "10.0.0.20",
    "node1": "10.0.0.21",
    "node2": "10.0.0.22",
}

NO_PG_CRON = {"shared_preload_libraries": ""}
"""Pages load it."""

pytestmark = pytest.mark.timeout(600)  # Up to four servers, and minutes of pages.


@pytest.fixture(scope="module")
def sampled(root: Path | None) -> Iterator[Cluster]:
    """A cluster, stopped: a thousandth of production, whose challenges are built."""
    with Cluster(root=root) as cluster:
        require_extension(cluster)
        cluster.create_database("discovery")
        cluster.psql("discovery", SCHEMA)
        cluster.psql("discovery", REPOSITORY / "discovery" / "generate.sql", variables={"scale": "0.001"})
        cluster.psql("discovery", CREATE_EXTENSION, "UPDATE challenges SET active = TRUE WHERE id = 'e'")
        cluster.psql("discovery", "CALL audius_challenges.tick()")
        cluster.stop()
        yield cluster


@pytest.fixture
def network(sampled: Cluster, root: Path | None) -> Iterator[Network]:
    """A primary that is a copy of the sample, and servers with nothing, on a network that demands passwords."""
    with ExitStack() as stack:
        machines = {}
        for name, address in ADDRESSES.items():
            machine = machines[name] = Machine(root=root, settings={} if name == "primary" else NO_PG_CRON)
            stack.callback(machine.close)
            machine.address = address
            if name == "primary":
                subprocess.run(["cp", "--archive", sampled.data_dir, machine.data_dir], check=True)
            machine.start()
            machine.demand_passwords()
        yield Network(machines)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_page_works_as_written_from_two_nodes_on(network: Network, page: str) -> None:
    network.follow(SCALE_OUT)
    network.follow(HOW_TO / page)
