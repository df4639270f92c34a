"""Nodes that take another one's place: by the present plan they are refused, by the next one nothing is paid twice.

Real servers and real replication; beside the primary, a single server has the same sources.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import SETTINGS, Node, Shares, conninfo, gexec
from tests.sessions import column, rows, until, value

ONE = "0/1"
SLOT = "audius_challenges_share_0_of_1"
MADE_ANEW = "the slot of share 0/1 was made anew: changes are missing on its node"
SOURCES = (
    "UPDATE challenges SET active = TRUE, starting_block = 0",
    "SELECT build.person(n, is_verified => n % 4 = 0) FROM generate_series(1, 12) AS n",
    "SELECT build.track(n, n % 3 + 1) FROM generate_series(1, 9) AS n",
    "SELECT build.play(1, 1, timestamp '2026-01-01' + n * INTERVAL '25 hours') FROM generate_series(1, 6) AS n",
    "SELECT build.play(2, 1, timestamp '2026-01-01' + n * INTERVAL '25 hours') FROM generate_series(1, 3) AS n",
)
DERIVED = (
    (
        "SELECT challenge_id, specifier, user_id, current_step_count, is_complete, amount FROM user_challenges"
        " WHERE challenge_id IN ('u', 'fp', 'p', 'v', 'e') ORDER BY 1, 2"
    ),
    "SELECT user_id, last_listen_date, listen_streak FROM challenge_listen_streak ORDER BY user_id",
    "SELECT to_jsonb(each) FROM challenge_profile_completion AS each ORDER BY user_id",
    "SELECT group_id, type FROM notification ORDER BY 1",
)
STATE = "SELECT listen_streak FROM challenge_listen_streak WHERE user_id = 1"
STEPS = "SELECT max(current_step_count) FROM user_challenges WHERE challenge_id = 'e' AND user_id = 1"
TICK = "CALL audius_challenges.tick()"


@dataclass
class Servers:
    """A primary with its node, and a single server."""

    shares: Shares
    single: Discovery

    @property
    def hub(self) -> Discovery:
        return self.shares.hub

    @property
    def node(self) -> Node:
        (node,) = self.shares.nodes
        return node

    def execute(self, *statements: str) -> None:
        """The same sources on the primary and on the single server."""
        for database in (self.hub, self.single):
            run(database, *statements)

    def derived(self, database: Discovery) -> list[list[tuple[object, ...]]]:
        """What has been written, and who has been told."""
        with closing(database.connect()) as connection:
            return [rows(connection, query) for query in DERIVED]

    def assert_equal(self) -> None:
        """Asserts that the primary has what the single server has, once nothing is left to be done."""
        self.shares.settle()
        run(self.single, "SELECT reconcile_challenges(full_scan => TRUE)")
        assert self.derived(self.hub) == self.derived(self.single)

    def refused(self) -> str:
        """The error of a tick on the primary, after one on the node; asserts that nothing is written."""
        before = self.derived(self.hub)
        with pytest.raises(psycopg.Error) as caught:
            self.shares.tick()
        assert self.derived(self.hub) == before
        return str(caught.value)

    def replace(self) -> Node:
        """Takes the node down, and has a new one join in its place."""
        former = self.node
        self.shares.nodes.clear()
        # The publications stay: others of the same names would be seen by themselves.
        run(self.hub, "DROP SUBSCRIPTION audius_challenges_return_0_of_1")
        gexec(former.database, "audius_challenges.drop_shares()")
        former.close()
        node = self.shares.join(ONE)
        until(lambda: ask(node.database, "SELECT count(*) FROM audius_challenges.share_plan") == 1, "the plan")
        return node


def run(database: Discovery, *statements: str) -> None:
    with closing(database.connect()) as connection:
        for statement in statements:
            connection.execute(statement)


def ask(database: Discovery, query: str) -> object:
    with closing(database.connect()) as connection:
        return value(connection, query)


def streaks(database: Discovery) -> list[tuple[object, ...]]:
    """The streaks of the first user."""
    query = (
        "SELECT specifier, current_step_count, is_complete FROM user_challenges"
        " WHERE challenge_id = 'e' AND user_id = 1 ORDER BY specifier"
    )
    with closing(database.connect()) as connection:
        return rows(connection, query)


@pytest.fixture(scope="module")
def cluster(root: Path | None) -> Iterator[Cluster]:
    """A server for primaries and single servers."""
    with Cluster(root=root, cron_database="postgres", settings=SETTINGS) as cluster:
        require_extension(cluster)
        yield cluster


@pytest.fixture
def made(cluster: Cluster) -> Iterator[Servers]:
    """A primary with one node at work, and a single server that has come as far."""
    hub, single = (create_discovery(cluster, name) for name in ("hub", "single"))
    for database in (hub, single):
        database.psql(CREATE_EXTENSION, *SOURCES)
    with Shares(hub) as shares:
        shares.set_up(1)
        servers = Servers(shares, single)
        servers.assert_equal()
        yield servers
        shares.take_down()
    for database in (hub, single):
        cluster.drop_database(database.name)


@pytest.mark.parametrize(
    ("waiting", "first", "is_slot_known"),
    [
        ("user_challenges", "challenge_listen_streak", False),
        ("challenge_listen_streak", "user_challenges", False),
        ("challenge_listen_streak", "user_challenges", True),
    ],
)
def test_a_node_built_anew_by_the_same_plan_is_refused_as_its_copies_may_be_of_several_states(
    made: Servers, waiting: str, first: str, is_slot_known: bool
) -> None:
    """The seventh listen is derived, and waits on the primary; a new node copies one table, it is written, and the new
    node copies the other one. With the row of the sixth listen and the state of the seventh it takes the eighth for the
    one that completes the row, and none for a day more.

    Where the slot is known to be another one, not even what the former node has sent is written any more.
    """
    listen = "SELECT build.play(1, 1, timestamp '2026-01-01' + {} * INTERVAL '25 hours')"
    made.execute(listen.format(7))
    made.shares.catch_up()
    made.node.tick()
    made.shares.catch_up()
    node = made.replace()
    with closing(node.connect()) as connection:
        *before, subscription = column(connection, f"SELECT audius_challenges.adopt_share($${conninfo(made.hub)}$$)")
        for statement in before:
            connection.execute(statement)
        with closing(node.connect(autocommit=False)) as holding:
            holding.execute(f"LOCK TABLE {waiting} IN SHARE MODE")  # whose copy waits
            connection.execute(subscription)
            copied = (
                f"SELECT count(*) FROM pg_subscription_rel WHERE srrelid = '{first}'::regclass AND srsubstate = 'r'"
            )
            until(lambda: value(connection, copied) == 1, f"the copy of {first}")
            if is_slot_known:
                with pytest.raises(psycopg.Error, match=MADE_ANEW):
                    run(made.hub, TICK)
            else:  # as after a crash, or where another server feeds the nodes
                run(made.hub, "SELECT pg_stat_reset_shared('archiver')", TICK)
            holding.rollback()
    assert ask(made.hub, STATE) == (6 if is_slot_known else 7)
    made.shares.finish_adoption(node)
    made.shares.until(lambda: not node.why_not(), "the node", node.why_not)
    states = ask(node.database, STATE), ask(node.database, STEPS)
    assert states == ((6, 6) if is_slot_known else (7, 6) if first == "user_challenges" else (6, 7))

    problem = MADE_ANEW if is_slot_known else "another node of share 0/1 has adopted in epoch 1"
    assert problem in made.refused()
    run(node.database, "SELECT audius_challenges.resend()")
    assert problem in made.refused()
    made.execute(listen.format(8))
    assert problem in made.refused()
    # It is not made up: the node derives what a single server does not.
    run(made.single, "SELECT reconcile_challenges()")
    assert (streaks(node.database) != streaks(made.single)) is (states == (7, 6))

    assert made.shares.plan(1) == 2
    made.shares.adopt(node)
    made.assert_equal()
    assert streaks(node.database) == streaks(made.single)
    for day in range(9, 17):
        made.execute(listen.format(day))
    made.execute("UPDATE users SET is_verified = TRUE WHERE user_id IN (3, 5)")
    made.assert_equal()
    sevens = (
        "SELECT count(*) FROM user_challenges WHERE challenge_id = 'e' AND user_id = 1 AND is_complete AND amount = 7"
    )
    assert ask(made.hub, sevens) == 1


def test_a_node_that_adopts_by_each_plan_goes_on_and_may_send_again(made: Servers) -> None:
    identity = ask(made.node.database, "SELECT node FROM audius_challenges.share_sent")
    for user in (5, 6):
        made.shares.plan(1)
        made.shares.adopt(made.node)
        made.execute(f"UPDATE users SET is_verified = TRUE WHERE user_id = {user}")
        made.assert_equal()
        run(made.node.database, "SELECT audius_challenges.resend()")
        made.assert_equal()
    assert ask(made.node.database, "SELECT node FROM audius_challenges.share_sent") == identity
    assert ask(made.hub, "SELECT node FROM audius_challenges.share_node") == identity


def test_an_adoption_that_is_finished_twice_is_one(made: Servers) -> None:
    made.shares.plan(1)
    node = made.node
    until(lambda: ask(node.database, "SELECT epoch FROM audius_challenges.share_plan") == 2, "the plan")
    gexec(node.database, f"audius_challenges.adopt_share('{conninfo(made.hub)}')")
    finish = "SELECT count(*) FROM audius_challenges.finish_adoption()"

    def is_finished() -> bool:
        try:
            return ask(node.database, finish) == 1
        except psycopg.Error:
            return False

    until(is_finished, "the adoption")
    node.tick()  # which does nothing yet, and says so
    sent = "SELECT (node, number)::text FROM audius_challenges.share_sent"
    before = ask(node.database, sent)
    assert str(before).endswith(",1)")
    gexec(node.database, "audius_challenges.finish_adoption()")
    assert ask(node.database, sent) == before
    made.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 7")
    made.assert_equal()


def test_a_node_whose_slot_was_made_anew_is_refused_until_it_is_built_anew(made: Servers) -> None:
    """A change that falls between two beats is in none of the node's numbers, and in no beat that it lacks."""
    node = made.node
    # A slot that has counted little is not told from a new one.
    made.execute(*(f"UPDATE users SET bio = '{number}' WHERE user_id = 12" for number in range(500)))
    made.assert_equal()
    run(node.database, f"ALTER SUBSCRIPTION {SLOT} DISABLE")
    unused = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND NOT active"
    until(lambda: ask(made.hub, unused) == 1, "the end of the subscription")
    run(made.hub, f"SELECT pg_drop_replication_slot('{SLOT}')")
    made.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 5")
    run(made.hub, f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    run(node.database, f"ALTER SUBSCRIPTION {SLOT} ENABLE")
    made.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 6")
    made.shares.catch_up()
    assert node.why_not() == []
    assert MADE_ANEW in made.refused()
    run(node.database, "SELECT audius_challenges.resend()")
    assert MADE_ANEW in made.refused()

    # The next plan has the same node adopt again: it lacks what it has lacked.
    made.shares.plan(1)
    made.shares.adopt(node)
    assert MADE_ANEW in made.refused()
    assert ask(node.database, "SELECT is_verified FROM users WHERE user_id = 5") is False

    made.shares.adopt(made.replace())
    made.assert_equal()
    paid = "SELECT array_agg(user_id ORDER BY user_id) FROM user_challenges WHERE challenge_id = 'v'"
    assert ask(made.hub, paid) == [4, 5, 6, 8, 12]
