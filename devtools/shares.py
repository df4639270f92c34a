"""Shares on one machine, for tests and benchmarks: a primary and its nodes, each a server of its own.

    with Shares(hub) as shares:          # a Discovery with the extension, on a cluster with SETTINGS
        shares.set_up(2)                 # publications, two nodes, a plan, adoption
        shares.settle()                  # ticks, until everything has come home
        shares.set_up(3)                 # three other nodes take over
        shares.take_down()

All is done by the statements that the extension prints, through psql, as people do it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import psycopg

from devtools.cluster import NO_SETTINGS, Cluster, ClusterError
from devtools.discovery import Discovery

SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_wal_senders": "30",
    "max_replication_slots": "40",
    "max_logical_replication_workers": "20",
    "max_sync_workers_per_subscription": "4",
    "max_worker_processes": "40",
    "wal_retrieve_retry_interval": "100ms",
}
"""What a server needs for shares; the last has a test wait for less."""

PATIENCE = 60.0

TICK = "CALL audius_challenges.tick()"

# Of the slots by which others follow this server: which have not confirmed what is in its WAL.
_BEHIND = """
    SELECT slot_name::text
    FROM pg_replication_slots
    WHERE database = current_database()
        AND slot_name ~ %s
        AND (confirmed_flush_lsn IS NULL OR confirmed_flush_lsn < %s::pg_lsn)
"""

_RETURNS = """
    SELECT subname
    FROM pg_subscription
    WHERE subname LIKE 'audius\\_challenges\\_return\\_%'
        AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


# What has come by the present plan.
_NODES = "audius_challenges.share_node INNER JOIN audius_challenges.share_plan USING (epoch)"


class NotThereYetError(RuntimeError):
    """Something was waited for in vain; the message says what, and what the servers logged."""


@dataclass
class Node:
    """One node: its database, its share, and whether the server has nothing else."""

    database: Discovery
    share: str
    is_alone: bool = True

    @property
    def cluster(self) -> Cluster:
        """Its server."""
        return self.database.cluster

    def close(self) -> None:
        """Removes it, or what is left of it, once nothing follows it any more."""
        if self.is_alone:
            self.cluster.close()
        else:
            self.cluster.drop_database(self.database.name)

    def connect(self, autocommit: bool = True) -> psycopg.Connection[Any]:
        """A new connection, in which the node's setting holds; the caller closes it."""
        return self.database.connect(autocommit=autocommit)

    def tick(self) -> None:
        """Ticks once."""
        _execute(self.database, TICK)

    def why_not(self) -> list[str]:
        """Why its ticks do nothing."""
        return [text for (text,) in _rows(self.database, "SELECT audius_challenges.share_why_not()")]


@dataclass
class Shares:
    """A primary and its nodes.

    hub: the primary's database, with the extension, on a cluster with SETTINGS.
    server: another one with SETTINGS, on which nodes are databases; by default each has a server of its own.
    settings: further lines of the postgresql.conf of such.
    """

    hub: Discovery
    server: Cluster | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: NO_SETTINGS)
    nodes: list[Node] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the nodes' servers; the primary's belongs to whoever has started it."""
        self._stack.close()

    # Set up

    def set_up(self, shares: int) -> list[Node]:
        """Has so many nodes, new ones, do the work; those there were are taken down. Returns the nodes."""
        former, self.nodes = self.nodes, []
        self.publish(shares)
        for number in range(shares):
            self.join(f"{number}/{shares}")
        self.plan(shares)
        for node in self.nodes:
            self.adopt(node)
        for node in former:
            self.leave(node)
        return self.nodes

    def publish(self, shares: int) -> None:
        """Publishes so many shares."""
        gexec(self.hub, f"audius_challenges.share_publications({shares})")

    def join(self, share: str) -> Node:
        """A new server, with the tables of a node, that follows the primary and is followed by it."""
        return self.join_node(self.new_node(share))

    def join_node(self, node: Node) -> Node:
        """Has a new server follow the primary, and be followed by it; the copy begins."""
        gexec(node.database, f"audius_challenges.join_share('{node.share}', '{conninfo(self.hub)}')")
        gexec(self.hub, f"audius_challenges.receive_share('{node.share}', '{conninfo(node.database)}')")
        self.nodes.append(node)
        return node

    def new_node(self, share: str) -> Node:
        """A new server with the tables of a node, and nothing in them."""
        cluster = self.server or self._stack.enter_context(
            Cluster(
                root=self.hub.cluster.root,
                cron_database="postgres",
                settings={**SETTINGS, **self.settings},
                in_memory=self.hub.cluster.in_memory,
            )
        )
        name = f"node_{share.replace('/', '_of_')}"
        cluster.create_database(name)
        node = Node(Discovery(cluster, name), share, is_alone=self.server is None)
        self.create_tables(node)
        return node

    def create_tables(self, node: Node) -> None:
        """Executes on a node what the primary prints."""
        statements = _rows(self.hub, "SELECT audius_challenges.share_tables()")
        node.database.psql("\n".join(f"{statement};" for (statement,) in statements))

    def plan(self, shares: int) -> int:
        """Decides on so many shares; the epoch."""
        ((epoch,),) = _rows(self.hub, "SELECT audius_challenges.plan_shares(%s)", shares)
        return int(epoch)

    def adopt(self, node: Node) -> None:
        """Has a node adopt what had been written when the plan was made, which has to come first."""
        (epoch,) = _rows(self.hub, "SELECT epoch FROM audius_challenges.share_plan")
        arrived = "SELECT epoch FROM audius_challenges.share_plan"
        self.until(lambda: _rows(node.database, arrived) == [epoch], f"the plan at {node.share}")
        gexec(node.database, f"audius_challenges.adopt_share('{conninfo(self.hub)}')")
        self.finish_adoption(node)
        self.until(lambda: not node.why_not(), f"node {node.share}", node.why_not)

    def finish_adoption(self, node: Node) -> None:
        """Has a node begin, as soon as all is copied."""
        refusal = ""

        def is_finished() -> bool:
            nonlocal refusal
            try:
                gexec(node.database, "audius_challenges.finish_adoption()")
            except ClusterError as error:
                refusal = str(error)
                if "still being copied" in refusal or "has not come as far" in refusal:
                    return False
                raise
            return True

        self.until(is_finished, f"the adoption of {node.share}", lambda: refusal)

    # At work

    def tick(self) -> None:
        """A tick of each node, and then one of the primary, each with all that the others have committed before."""
        self.catch_up()
        for node in self.nodes:
            node.tick()
        self.catch_up()
        _execute(self.hub, TICK)

    def settle(self, ticks: int = 50) -> None:
        """Ticks until all nodes follow changes, and nothing is left to be written on the primary."""
        for _ in range(ticks):
            self.tick()
            if self.is_settled():
                return
        raise NotThereYetError(f"not settled after {ticks} ticks")

    def is_settled(self) -> bool:
        """Whether the last tick of each node had nothing to catch up with, and all has been written."""
        behind = _rows(
            self.hub,
            f"SELECT share FROM {_NODES}"
            " WHERE beat_at IS NULL OR says IS NOT NULL OR problem IS NOT NULL OR behind <> '{}'",
        )
        known = _rows(self.hub, f"SELECT count(*) FROM {_NODES}")
        left = _rows(
            self.hub, "SELECT count(*) FROM audius_challenges.share_batch WHERE relation <> 'beat' AND NOT is_held"
        )
        return not behind and known == [(len(self.nodes),)] and left == [(0,)]

    def catch_up(self) -> None:
        """Waits until each server has all that the others had committed when it was called."""
        self._until_confirmed(self.hub, "^audius_challenges_share_")
        for node in self.nodes:
            self._until_confirmed(node.database, "^audius_challenges_return_")

    # Taken down

    def leave(self, node: Node) -> None:
        """Takes a node down, by what it prints, and what the primary has of it."""
        number, shares = node.share.split("/")
        # First: as long as the primary receives from the node, the slot there is its own to drop.
        self.hub.psql(f"DROP SUBSCRIPTION audius_challenges_return_{number}_of_{shares}")
        gexec(node.database, "audius_challenges.drop_shares()")
        for kind in ("", "_plays", "_adopt"):
            self.hub.psql(f"DROP PUBLICATION audius_challenges_share_{number}_of_{shares}{kind}")
        node.close()

    def take_down(self) -> None:
        """Has the primary do everything again, and removes all of shares there and on the nodes."""
        for (name,) in _rows(self.hub, _RETURNS):
            self.hub.psql(f"DROP SUBSCRIPTION {name}")
        for node in self.nodes:
            gexec(node.database, "audius_challenges.drop_shares()")
        gexec(self.hub, "audius_challenges.drop_shares()")
        for node in self.nodes:
            node.close()
        self.nodes = []

    # Waiting

    def until(self, happens: Callable[[], bool], what: str, instead: Callable[[], object] = lambda: "") -> None:
        """Waits for something; fails with what there is instead, and what the servers have logged last."""
        deadline = time.monotonic() + PATIENCE
        while not happens():
            if time.monotonic() > deadline:
                logs = [cluster.log()[-2000:] for cluster in (self.hub.cluster, *(n.cluster for n in self.nodes))]
                raise NotThereYetError("\n".join([f"waited in vain for {what}: {instead()}", *logs]))
            time.sleep(0.05)

    def _until_confirmed(self, publisher: Discovery, slots: str) -> None:
        with closing(publisher.connect()) as connection:
            # Flushed, too: a walsender sends nothing that is not.
            connection.execute("SELECT pg_logical_emit_message(TRUE, 'audius_challenges', 'flush')")
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            behind: list[tuple[Any, ...]] = []

            def is_confirmed() -> bool:
                behind[:] = connection.execute(_BEHIND, [slots, row[0]]).fetchall()
                return not behind

            self.until(is_confirmed, f"what {publisher.name} has sent", lambda: behind)


def conninfo(database: Discovery) -> str:
    """How another server of this machine connects to a database."""
    cluster = database.cluster
    return f"host={cluster.inside(cluster.socket_dir)} port={cluster.port} user=postgres dbname={database.name}"


def gexec(database: Discovery, function: str) -> None:
    """Executes what a function prints, by psql; raises ClusterError at the first statement that fails."""
    options = ("--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
    names = ("--username=postgres", f"--dbname={database.name}")
    database.cluster.run("psql", *options, *names, "--file=-", input=f"SELECT * FROM {function} \\gexec\n")


def _execute(database: Discovery, statement: str) -> None:
    with closing(database.connect()) as connection:
        connection.execute(statement)


def _rows(database: Discovery, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with closing(database.connect()) as connection:
        return connection.execute(query, parameters or None).fetchall()
