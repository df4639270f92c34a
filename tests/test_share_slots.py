"""A slot made anew, or a table that leaves a publication, loses changes: the primary sees it, and takes nothing."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import SETTINGS
from tests.sessions import Notice, column, message_of, notices, rows, tick, value

SLOT = "audius_challenges_share_0_of_1"
MADE_ANEW = "the slot of share 0/1 was made anew: changes are missing on its node"
REMEMBERED = "SELECT slot_txns, slot_bytes, slot_reset FROM audius_challenges.share_node"
COUNTED = "SELECT total_txns FROM pg_stat_replication_slots WHERE slot_name = 'audius_challenges_share_0_of_1'"


@dataclass
class Hub:
    """A primary of one share. Its slot is read, and its node's batches are sent, when a test says so."""

    database: Discovery
    node: UUID
    number: int = 0

    def execute(self, *statements: str) -> None:
        """Executes statements, in a session of its own."""
        with closing(self.database.connect()) as connection:
            for statement in statements:
                connection.execute(statement)

    def ask(self, query: str) -> object:
        """The only column of the only row of a query."""
        with closing(self.database.connect()) as connection:
            return value(connection, query)

    def create_slot(self) -> None:
        self.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")

    def drop_slot(self) -> None:
        self.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")

    def make_anew(self) -> None:
        """Drops the slot and creates it; what is committed in between is in none."""
        self.drop_slot()
        self.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 7")
        self.create_slot()

    def feed(self, transactions: int = 1) -> None:
        """So many transactions, which a node gets."""
        self.execute(*(f"UPDATE users SET bio = '{each}' WHERE user_id = 1" for each in range(transactions)))
        self.execute(
            f"SELECT count(*) FROM pg_logical_slot_get_binary_changes('{SLOT}', NULL, NULL, 'proto_version', '1',"
            " 'publication_names', 'followed')"
        )

    def send(self, user: int) -> None:
        """A row of a user comes from the node."""
        self.number += 1
        with closing(self.database.connect()) as connection:
            connection.execute(
                """
                INSERT INTO audius_challenges.share_batch
                    (epoch, share, node, number, relation, challenge_id, users, specifiers, steps, amounts, is_complete,
                     created_at, completed_at)
                SELECT
                    plan.epoch, '0/1', %(node)s, %(number)s, 'user_challenges', 'u', ARRAY[%(user)s::bigint],
                    ARRAY[to_hex(%(user)s::bigint)], '{1}', '{1}', '{f}', '{2026-01-01Z}', ARRAY[NULL::timestamp]
                FROM audius_challenges.share_plan AS plan
                """,
                {"node": self.node, "number": self.number, "user": user},
            )

    def tick(self, user: int | None = None) -> list[Notice]:
        """Ticks, after something has come of the node."""
        if user is not None:
            self.send(user)
        with closing(self.database.connect()) as connection:
            return tick(connection)

    def fails(self, user: int | None = None) -> psycopg.Error:
        """The error of a tick, after something has come of the node."""
        with pytest.raises(psycopg.Error) as caught:
            self.tick(user)
        return caught.value

    @property
    def users(self) -> list[int]:
        """Who has a row."""
        with closing(self.database.connect()) as connection:
            return column(connection, "SELECT user_id FROM user_challenges WHERE challenge_id = 'u' ORDER BY user_id")


@pytest.fixture(scope="module")
def server(root: Path | None) -> Iterator[Cluster]:
    """A server to which anything may happen, as long as it runs in the end."""
    with Cluster(root=root, cron_database="postgres", settings=SETTINGS) as cluster:
        require_extension(cluster)
        yield cluster


@pytest.fixture
def unfed(server: Cluster) -> Hub:
    """A primary without a slot."""
    # What the test before has left, whatever became of it.
    server.psql("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    server.drop_database("hub")
    hub = Hub(create_discovery(server, "hub"), uuid4())
    hub.database.psql(
        CREATE_EXTENSION,
        "UPDATE challenges SET active = TRUE, starting_block = 0",
        "SELECT build.person(n) FROM generate_series(1, 40) AS n",
        "CREATE PUBLICATION followed FOR TABLE users",
        "SELECT audius_challenges.plan_shares(1)",
    )
    return hub


@pytest.fixture
def hub(unfed: Hub) -> Hub:
    """A primary whose slot has counted something when the first batch has been taken in."""
    unfed.create_slot()
    unfed.feed(20)
    unfed.tick(1)
    assert unfed.users == [1]
    return unfed


def test_a_slot_made_anew_between_two_ticks_is_seen_and_nothing_else_is_taken_of_its_node(hub: Hub) -> None:
    hub.feed()
    hub.tick(2)
    hub.make_anew()
    hub.feed()
    error = hub.fails(3)
    assert message_of(error) == (
        f"audius_challenges: {MADE_ANEW}",
        (
            "Set the node whose audius_challenges.share is 0/1 up anew: there SELECT audius_challenges.drop_shares()"
            " \\gexec, empty its tables, and join again. Then SELECT audius_challenges.plan_shares(1); on the primary"
            " has all nodes adopt anew."
        ),
    )
    assert hub.users == [1, 2]

    # It stays so, whatever comes, and whatever the slot has counted by then.
    hub.feed(40)
    assert MADE_ANEW in str(hub.fails(4))
    assert MADE_ANEW in str(hub.fails())
    assert hub.ask("SELECT count(*) FROM audius_challenges.share_batch") == 0
    hub.node, hub.number = uuid4(), 0
    assert MADE_ANEW in str(hub.fails(5))
    assert hub.users == [1, 2]

    # Another plan does not give the node what it lacks.
    node = hub.node
    hub.execute("SELECT audius_challenges.plan_shares(1)")
    hub.tick()
    with closing(hub.database.connect()) as connection:
        (lacking,) = column(connection, "SELECT node FROM audius_challenges.share_node")
    hub.node, hub.number = lacking, 0
    assert MADE_ANEW in str(hub.fails(6))
    assert MADE_ANEW in str(hub.fails())
    assert hub.users == [1, 2]
    hub.node, hub.number = node, 0
    hub.feed()
    hub.tick(6)
    assert hub.users == [1, 2, 6]
    assert hub.ask("SELECT problem IS NULL FROM audius_challenges.share_node") is True


def test_what_had_been_taken_in_before_is_written(hub: Hub) -> None:
    hub.execute("UPDATE challenges SET active = FALSE WHERE id = 'u'")
    hub.tick(2)
    hub.make_anew()
    hub.feed()
    hub.execute("UPDATE challenges SET active = TRUE WHERE id = 'u'")
    hub.fails(3)
    assert hub.users == [1, 2]


def test_a_slot_that_is_missed_for_a_while_and_there_again_is_another_one(hub: Hub) -> None:
    hub.drop_slot()
    hub.tick(2)
    hub.tick(3)
    assert hub.users == [1, 2, 3]
    hub.create_slot()
    hub.feed()
    assert MADE_ANEW in str(hub.fails(4))


def test_a_slot_made_anew_after_its_statistics_were_reset_is_seen(hub: Hub) -> None:
    hub.execute(f"SELECT pg_stat_reset_replication_slot('{SLOT}')")
    hub.tick(2)
    hub.make_anew()
    hub.feed(30)  # more than were counted since
    assert MADE_ANEW in str(hub.fails(3))


def test_a_slot_made_anew_while_a_plan_becomes_the_present_one_is_seen(hub: Hub) -> None:
    hub.execute("SELECT audius_challenges.plan_shares(0)", "SELECT audius_challenges.plan_shares(1)")
    hub.make_anew()
    hub.feed()
    hub.number = 0
    assert MADE_ANEW in str(hub.fails(2))
    # Not of a node that was set up anew, which has a slot of its own.
    hub.node, hub.number = uuid4(), 0
    hub.tick(3)
    assert hub.users == [1, 3]


def test_a_node_set_up_anew_with_the_next_plan_has_another_slot(hub: Hub) -> None:
    hub.execute("SELECT audius_challenges.plan_shares(1)")
    hub.make_anew()
    hub.node, hub.number = uuid4(), 0
    hub.tick(2)
    hub.feed()
    hub.tick(3)
    assert hub.users == [1, 2, 3]


def forget_in_a_crash(hub: Hub) -> None:
    hub.database.cluster.crash()
    hub.database.cluster.start()


def forget_in_an_immediate_shutdown(hub: Hub) -> None:
    hub.database.cluster.stop("immediate")
    hub.database.cluster.start()


def forget_in_a_crash_of_one_process(hub: Hub) -> None:
    """All processes but the first end, and the server recovers."""
    with closing(hub.database.connect()) as connection:
        hub.database.cluster.kill(connection.info.backend_pid)


def reset_the_slots(hub: Hub) -> None:
    hub.execute(f"SELECT pg_stat_reset_replication_slot('{SLOT}')")


def reset_all_slots_twice(hub: Hub) -> None:
    hub.execute("SELECT pg_stat_reset_replication_slot(NULL)")
    hub.tick(30)
    hub.execute("SELECT pg_stat_reset_replication_slot(NULL)")


def reset_the_databases(hub: Hub) -> None:
    hub.execute("SELECT pg_stat_reset()")


def reset_the_servers(hub: Hub) -> None:
    hub.execute("SELECT pg_stat_reset_shared('archiver')", "SELECT pg_stat_reset_shared('bgwriter')")


def restart(hub: Hub) -> None:
    hub.database.cluster.restart()


def do_nothing(_: Hub) -> None:
    """The slot's node is away: the slot counts nothing."""


FORGETTING = (
    forget_in_a_crash,
    forget_in_an_immediate_shutdown,
    forget_in_a_crash_of_one_process,
    reset_the_slots,
    reset_all_slots_twice,
)


@pytest.mark.parametrize("happens", [*FORGETTING, reset_the_databases, reset_the_servers, restart, do_nothing])
def test_no_slot_is_suspected_of_being_new_because_of_what_happens_to_statistics(
    hub: Hub, happens: Callable[[Hub], None]
) -> None:
    hub.feed()
    hub.tick(2)
    before = hub.ask(COUNTED)
    assert isinstance(before, int)
    assert before >= 20
    happens(hub)
    now = hub.ask(COUNTED)
    assert isinstance(now, int)
    assert (now < before) is (happens in FORGETTING)
    assert hub.tick(3) == []
    hub.feed()
    assert hub.tick(4) == []
    assert {2, 3, 4} <= set(hub.users)
    with closing(hub.database.connect()) as connection:
        assert rows(connection, "SELECT problem FROM audius_challenges.share_node") == [(None,)]

    # And it is known from then on.
    hub.feed(5)
    hub.tick(5)
    hub.make_anew()
    hub.feed()
    assert MADE_ANEW in str(hub.fails(6))


def test_a_node_that_is_fed_by_another_server_has_no_slot_here(unfed: Hub) -> None:
    for user in (1, 2, 3):
        assert unfed.tick(user) == []
    with closing(unfed.database.connect()) as connection:
        assert rows(connection, REMEMBERED) == [(None, None, None)]
    assert unfed.users == [1, 2, 3]


def test_a_slot_that_was_never_there_before_is_remembered(unfed: Hub) -> None:
    unfed.tick(1)
    unfed.create_slot()
    unfed.feed(5)
    assert unfed.tick(2) == []
    unfed.make_anew()
    unfed.feed()
    assert MADE_ANEW in str(unfed.fails(3))


def test_a_slot_of_another_database_is_not_that_of_the_share(unfed: Hub, server: Cluster) -> None:
    create = f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"
    drop = f"SELECT pg_drop_replication_slot('{SLOT}')"
    server.psql("postgres", create)
    try:
        unfed.tick(1)
        with closing(unfed.database.connect()) as connection:
            assert rows(connection, REMEMBERED) == [(None, None, None)]
    finally:
        server.psql("postgres", drop)


@pytest.mark.parametrize("consistency", ["cache", "snapshot", "none"])
def test_statistics_that_the_callers_transaction_has_read_long_before_are_not_gone_by(
    hub: Hub, consistency: str
) -> None:
    with closing(hub.database.connect(autocommit=False)) as early:
        early.execute(f"SET stats_fetch_consistency = {consistency}")
        early.execute("SELECT * FROM pg_stat_replication_slots")
        hub.feed()
        hub.tick(2)
        hub.send(3)
        with notices(early) as heard:
            early.execute("SELECT reconcile_challenges()")
        assert heard == []
        early.commit()
    assert hub.users == [1, 2, 3]


def test_who_runs_needs_no_right_to_look_at_slots(hub: Hub) -> None:
    hub.execute("CREATE ROLE slot_role LOGIN")
    try:
        hub.execute("SELECT audius_challenges.grant_run('slot_role')")
        hub.execute("GRANT ALL ON user_challenges_log, user_challenges_log_id_seq TO slot_role")
        hub.send(2)
        with closing(hub.database.connect("slot_role")) as role:
            tick(role)
        assert hub.users == [1, 2]
        hub.make_anew()
        hub.send(3)
        with closing(hub.database.connect("slot_role")) as role, pytest.raises(psycopg.Error, match=MADE_ANEW):
            tick(role)
    finally:
        hub.execute("DROP OWNED BY slot_role; DROP ROLE slot_role")


def test_doctor_and_the_view_say_what_mends_it(hub: Hub) -> None:
    hub.make_anew()
    hub.fails(2)
    with closing(hub.database.connect()) as connection:
        shown = "SELECT share, status, problem FROM audius_challenges.share_status"
        assert rows(connection, shown) == [("0/1", "gap", MADE_ANEW)]
        query = "SELECT expected FROM audius_challenges.doctor() WHERE what LIKE 'share 0/1 is not written%'"
        (expected,) = column(connection, query)
        assert expected.startswith("Set the node whose audius_challenges.share is 0/1 up anew:")
        connection.execute("UPDATE audius_challenges.share_node SET mended_by = 'plan'")
        (expected,) = column(connection, query)
        assert expected == "SELECT audius_challenges.plan_shares(1); on the primary has all nodes adopt anew"


PUBLICATION = "CREATE PUBLICATION audius_challenges_share_0_of_1 FOR TABLE users, tracks, playlists"
CHANGED = "the publications of share 0/1 have changed: changes are missing on its node"


@pytest.mark.parametrize(
    "change",
    [
        "ALTER PUBLICATION audius_challenges_share_0_of_1 DROP TABLE tracks",
        "ALTER PUBLICATION audius_challenges_share_0_of_1 SET TABLE users, playlists, tracks (track_id, txhash)",
        "ALTER PUBLICATION audius_challenges_share_0_of_1 SET (publish = 'insert, update')",
        "DROP PUBLICATION audius_challenges_share_0_of_1",
        f"DROP PUBLICATION audius_challenges_share_0_of_1; {PUBLICATION}",
        "CREATE PUBLICATION audius_challenges_share_0_of_1_plays FOR TABLE plays",
    ],
)
def test_a_publication_that_has_changed_is_seen_until_there_is_another_plan(unfed: Hub, change: str) -> None:
    unfed.execute(PUBLICATION, "CREATE PUBLICATION of_others FOR TABLE blocks")
    unfed.tick(1)
    unfed.execute("ALTER PUBLICATION of_others DROP TABLE blocks")
    unfed.tick(2)
    unfed.execute(*change.split(";"))
    message, hint = message_of(unfed.fails(3))
    assert message == f"audius_challenges: {CHANGED}, unless its tables were locked meanwhile"
    assert hint is not None
    assert "SELECT audius_challenges.plan_shares(1);" in hint
    assert CHANGED in str(unfed.fails(4))
    assert unfed.users == [1, 2]

    unfed.execute("SELECT audius_challenges.plan_shares(1)")
    unfed.node, unfed.number = uuid4(), 0
    unfed.tick(5)
    unfed.tick(6)
    assert unfed.users == [1, 2, 5, 6]
