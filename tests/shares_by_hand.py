"""Shares without replication: databases of one server, between which a test carries what would be replicated.

What a node of shares does before and after it derives is not of interest here (see test_share_nodes): a node is a
database with some of the users, and with the triggers that send rows home. What they send is kept, and carried to the
primary when a test says so; all of it, or some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count

from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.sessions import Connection, column, rows, value

SENT = ("user_challenges", "challenge_profile_completion", "challenge_listen_streak")
SHARED = ("u", "fp", "p", "v", "e")
DERIVED = {
    "user_challenges": "challenge_id, specifier",
    "challenge_profile_completion": "user_id",
    "challenge_listen_streak": "user_id",
}
"""The tables that have to come out as on a single server, and their keys."""

_TRIGGERS = "".join(
    f"""
    CREATE TRIGGER send_{event} AFTER {event} ON {table} REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION audius_challenges.send_share();
    """
    for table in SENT
    for event in ("INSERT", "UPDATE")
)

# What the WAL would carry: each row as it was inserted, though it is deleted at once.
_KEEP = """
    CREATE TABLE sent (LIKE audius_challenges.share_batch);
    CREATE FUNCTION keep_sent() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.sent SELECT new.*;
        RETURN NULL;
    END $$;
    CREATE TRIGGER keep AFTER INSERT ON audius_challenges.share_batch FOR EACH ROW EXECUTE FUNCTION keep_sent();
    DROP TRIGGER on_user_challenge ON user_challenges;
    DROP TRIGGER log_user_challenge ON user_challenges;
"""

_COLUMNS = (
    "epoch, share, node, number, is_restart, relation, challenge_id, users, specifiers, steps, amounts, is_complete,"
    " created_at, completed_at, says, behind"
)

_names = count(1)


@dataclass
class Node:
    """A database with the users of a share.

    :ivar behind: what its next beat says that it is behind with
    """

    connection: Connection
    number: int
    of: int
    behind: list[str] = field(default_factory=list)

    @property
    def share(self) -> str:
        return f"{self.number}/{self.of}"

    def keep_own(self) -> None:
        """Deletes what is of other shares' users."""
        for table, user in (
            ("follows", "follower_user_id"),
            *((name, "user_id") for name in ("users", "saves", "reposts", "plays")),
        ):
            self.connection.execute(f"DELETE FROM {table} WHERE {user} IS NULL OR NOT ({self._is_own(user)})")

    def adopt(self, hub: Connection, epoch: int) -> None:
        """Takes the rows of its users from the primary, as if they were its own, and begins to count anew."""
        with self.connection.transaction():
            self.connection.execute("SET LOCAL session_replication_role = replica")
            for table in SENT:
                self.connection.execute(f"TRUNCATE {table}")
                for row in column(hub, f"SELECT each::text FROM {table} AS each WHERE {self._is_own('user_id')}"):
                    self.connection.execute(f"INSERT INTO {table} SELECT (%s::{table}).*", [row])
            self.connection.execute("DELETE FROM audius_challenges.share_sent")
            self.connection.execute(
                "INSERT INTO audius_challenges.share_sent VALUES (TRUE, %s, %s, 0)", [self.share, epoch]
            )
            self.connection.execute("UPDATE audius_challenges.processor_state SET look = NULL")

    def beat(self, says: str | None = None) -> None:
        """What the end of a tick sends."""
        self.connection.execute(
            """
            WITH next AS (
                UPDATE audius_challenges.share_sent SET number = number + 1 RETURNING epoch, share, node, number
            )
            INSERT INTO audius_challenges.share_batch (epoch, share, node, number, relation, created_at, says, behind)
            SELECT epoch, share, node, number, 'beat', ARRAY[now()], %s, %s FROM next
            """,
            [says, self.behind],
        )
        self.connection.execute("DELETE FROM audius_challenges.share_batch")

    def run(self, as_of: str = "now", *, full_scan: bool = False) -> None:
        """What a tick does."""
        self.connection.execute(
            "SELECT reconcile_challenges(%s, as_of => %s, full_scan => %s)",
            [list(SHARED), as_of, full_scan],
        )
        self.beat()

    def _is_own(self, user: str) -> str:
        return f"(({user} % {self.of}) + {self.of}) % {self.of} = {self.number}"

    def sent(self) -> list[str]:
        """What has been sent and was not carried yet, in order."""
        query = """
            WITH gone AS (DELETE FROM sent RETURNING number, sent::text AS batch)
            SELECT batch FROM gone ORDER BY number
        """
        return column(self.connection, query)


def carry(hub: Connection, batches: Sequence[str]) -> None:
    """What has been sent arrives at the primary."""
    for batch in batches:
        hub.execute(
            f"""
            INSERT INTO audius_challenges.share_batch ({_COLUMNS})
            SELECT {_COLUMNS} FROM (SELECT (%s::audius_challenges.share_batch).*) AS come
            """,
            [batch],
        )


@dataclass
class Servers:
    """A primary, its nodes, and a single server with the same sources.

    :ivar nodes: those of the plan
    """

    cluster: Cluster
    template: str
    hub: Connection
    single: Connection
    nodes: list[Node] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def execute(self, statement: str) -> None:
        """The same everywhere; each node keeps what is of its own users."""
        self.hub.execute(statement)
        self.single.execute(statement)
        for node in self.nodes:
            node.connection.execute(statement)
            node.keep_own()

    def share(self, shares: int) -> int:
        """Plans so many shares, with new nodes that have the sources and adopt the derived rows; the epoch."""
        epoch: int = value(self.hub, "SELECT audius_challenges.plan_shares(%s)", shares)
        self.nodes = []
        for number in range(shares):
            connection = self._stack.enter_context(closing(self._copy_of_sources()))
            node = Node(connection, number, shares)
            connection.execute(_KEEP)
            node.keep_own()
            node.adopt(self.hub, epoch)
            connection.execute(_TRIGGERS)
            self.nodes.append(node)
        return epoch

    def run(self, as_of: str = "now", *, full_scan: bool = False) -> None:
        """A run of each node, then of the primary, of what they have sent, and one of the single server."""
        for node in self.nodes:
            node.run(as_of, full_scan=full_scan)
            carry(self.hub, node.sent())
        self.hub.execute("SELECT reconcile_challenges(as_of => %s)", [as_of])
        self.single.execute("SELECT reconcile_challenges(as_of => %s, full_scan => %s)", [as_of, full_scan])

    def assert_equal(self) -> None:
        """Asserts that the primary has, row by row, what the single server has, and has told as many users."""
        for table, key in DERIVED.items():
            query = f"SELECT to_jsonb(each) FROM {table} AS each ORDER BY {key}"
            assert column(self.hub, query) == column(self.single, query), table
        for query in (
            "SELECT group_id, type FROM notification ORDER BY 1",
            "SELECT day, challenge_id, completions, amount FROM audius_challenges.challenge_day ORDER BY 1, 2",
        ):
            assert rows(self.hub, query) == rows(self.single, query)
        assert value(self.hub, "SELECT count(*) FROM audius_challenges.share_batch") == 0

    def _copy_of_sources(self) -> Connection:
        """A new database with the sources of the single server and its catalog."""
        discovery = self._database()
        connection = discovery.connect()
        tables = ("blocks", "users", "follows", "saves", "reposts", "tracks", "playlists", "plays", "challenges")
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute("DELETE FROM challenges")
            for table in tables:
                copied = "".join(f"{row}\n" for row in self._copied(table))
                with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(copied)
            connection.execute(
                "SELECT setval('plays_id_seq', %s)", [value(self.single, "SELECT last_value FROM plays_id_seq")]
            )
        return connection

    def _copied(self, table: str) -> Iterator[str]:
        with self.single.cursor().copy(f"COPY {table} TO STDOUT") as copy:
            yield from "".join(bytes(part).decode() for part in copy).splitlines()

    def _database(self) -> Discovery:
        name = f"by_hand_{next(_names)}"
        self.cluster.create_database(name, self.template)
        self._stack.callback(self.cluster.drop_database, name)
        return Discovery(self.cluster, name)


@contextmanager
def servers(cluster: Cluster, template: str) -> Iterator[Servers]:
    """A primary without nodes, and a single server: the catalog active, no other rows."""
    with ExitStack() as stack:
        made = Servers(cluster, template, None, None, _stack=stack)  # type: ignore[arg-type]
        made.hub, made.single = (stack.enter_context(closing(made._database().connect())) for _ in range(2))  # noqa: SLF001
        made.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        yield made
