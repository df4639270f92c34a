"""What a node of shares does and what it leaves to the primary, with real servers and real replication."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, create_discovery, require_extension
from devtools.shares import SETTINGS, Shares
from tests.sessions import (
    RUN_LOCK,
    RUN_ORDER,
    TICK,
    Beside,
    Connection,
    column,
    message_of,
    notices,
    rows,
    shown,
    statuses,
    tick,
    value,
)
from tests.shares_by_hand import SHARED

ELSEWHERE = "done by the primary: not in the plan of shares"
SOURCES = """
    UPDATE challenges SET active = TRUE, starting_block = 0;
    SELECT build.person(n, is_verified => n % 2 = 0) FROM generate_series(1, 12) AS n;
    SELECT build.track(n, n) FROM generate_series(1, 12) AS n;
    SELECT build.play(1, 1, timestamp '2026-01-01' + n * INTERVAL '25 hours') FROM generate_series(1, 3) AS n;
    SELECT build.play(2, 1, timestamp '2026-01-01' + n * INTERVAL '25 hours') FROM generate_series(1, 3) AS n;
"""
STREAKS = "SELECT user_id, listen_streak FROM challenge_listen_streak ORDER BY user_id"
DERIVED = (
    "SELECT challenge_id, specifier, user_id, current_step_count, is_complete, amount FROM user_challenges"
    " WHERE challenge_id IN ('u', 'fp', 'p', 'v', 'e') ORDER BY 1, 2"
)


@pytest.fixture(scope="module")
def pair(root: Path | None) -> Iterator[Shares]:
    """A primary and one node that has caught up. Each test leaves both at work."""
    with Cluster(root=root, cron_database="postgres", settings=SETTINGS) as cluster:
        require_extension(cluster)
        primary = create_discovery(cluster, "hub")
        primary.psql(CREATE_EXTENSION, SOURCES)
        with Shares(primary) as shares:
            shares.set_up(1)
            shares.settle()
            yield shares


@pytest.fixture
def hub(pair: Shares) -> Iterator[Connection]:
    with closing(pair.hub.connect()) as connection:
        yield connection


@pytest.fixture
def node(pair: Shares) -> Iterator[Connection]:
    with closing(pair.nodes[0].connect()) as connection:
        yield connection


def open_pauses(connection: Connection) -> list[bool]:
    """Whether each pause of e is under way."""
    return column(connection, "SELECT ended_at IS NULL FROM audius_challenges.pause ORDER BY began_at")


def test_it_derives_the_challenges_of_the_plan_alone(hub: Connection, node: Connection) -> None:
    assert rows(hub, DERIVED) == rows(node, DERIVED)
    assert {row[0] for row in rows(node, DERIVED)} == {"u", "v", "e"}
    assert column(node, "SELECT DISTINCT challenge_id FROM user_challenges ORDER BY 1") == ["e", "u", "v"]
    of_node = statuses(node)
    assert list(of_node) == list(RUN_ORDER)
    assert {each: of_node[each] for each in SHARED} == dict.fromkeys(SHARED, ("ok", None))
    others = set(RUN_ORDER) - set(SHARED)
    assert {each: of_node[each] for each in others} == dict.fromkeys(others, ("inactive", ELSEWHERE))
    known = "SELECT challenge_id FROM audius_challenges.processor_state WHERE last_run IS NOT NULL"
    assert set(column(node, known)) == set(SHARED)


def test_an_outbox_stays_empty(pair: Shares, hub: Connection, node: Connection) -> None:
    hub.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 1")
    pair.settle()
    assert value(node, "SELECT count(*) FROM audius_challenges.share_batch") == 0
    assert value(hub, "SELECT is_complete FROM user_challenges WHERE challenge_id = 'v' AND user_id = 1") is True


def test_a_pause_of_e_is_the_primarys_and_holds_on_the_node(pair: Shares, hub: Connection, node: Connection) -> None:
    before = rows(hub, STREAKS)
    hub.execute("UPDATE challenges SET active = FALSE WHERE id = 'e'")
    pair.catch_up()
    tick(node)
    assert open_pauses(node) == []
    tick(hub)
    pair.catch_up()
    tick(node)
    assert (open_pauses(hub), open_pauses(node)) == ([True], [True])
    hub.execute("SELECT build.play(1, 1, now()::timestamp)")
    hub.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
    pair.catch_up()
    # Active, and the pause has not ended: what was listened in it must not be counted.
    assert statuses(node)["e"] == ("inactive", "the primary has not ended its pause yet")
    tick(node)
    assert rows(node, STREAKS) == before
    assert open_pauses(node) == [True]
    tick(hub)
    pair.catch_up()
    assert (open_pauses(hub), open_pauses(node)) == ([False], [False])
    assert statuses(node)["e"] == ("ok", None)
    pair.settle()
    assert (rows(hub, STREAKS), rows(node, STREAKS)) == (before, before)


def test_what_starts_from_now_and_what_is_planned_is_decided_on_the_primary(node: Connection) -> None:
    with pytest.raises(psycopg.Error) as caught:
        node.execute("SELECT audius_challenges.start_from_now('{u}')")
    assert message_of(caught.value) == (
        "audius_challenges: this server is a node of shares: what starts from now is decided on the primary",
        "Call it there, while its plan has no shares: SELECT audius_challenges.plan_shares(0);",
    )
    with pytest.raises(psycopg.Error, match="this server is a node of shares: the plan is made on the primary"):
        node.execute("SELECT audius_challenges.plan_shares(2)")


def test_what_was_lost_is_sent_again(pair: Shares, hub: Connection, node: Connection) -> None:
    pair.settle()
    hub.execute("UPDATE users SET is_verified = TRUE WHERE user_id IN (3, 5)")
    pair.catch_up()
    tick(node)
    pair.catch_up()
    hub.execute("DELETE FROM audius_challenges.share_batch WHERE relation <> 'beat'")  # lost on the way
    with pytest.raises(psycopg.Error, match="is missing"):
        tick(hub)
    assert rows(hub, DERIVED) != rows(node, DERIVED)
    number = value(node, "SELECT count(*) FROM user_challenges") + value(
        node, "SELECT count(*) FROM challenge_profile_completion"
    )
    streaks = len(rows(node, STREAKS))
    assert value(node, "SELECT audius_challenges.resend()") == number + streaks
    pair.catch_up()
    with notices(hub) as heard:
        tick(hub)
    assert heard == []
    assert rows(hub, DERIVED) == rows(node, DERIVED)
    assert rows(hub, STREAKS) == rows(node, STREAKS)
    pair.settle()


def test_everything_is_sent_again_where_there_is_nothing(pair: Shares, hub: Connection, node: Connection) -> None:
    """A share without rows says so, too: what was lost does not matter any more."""
    with node.transaction(force_rollback=True):
        node.execute("SET LOCAL session_replication_role = replica")
        node.execute("TRUNCATE user_challenges, challenge_profile_completion, challenge_listen_streak")
        assert value(node, "SELECT audius_challenges.resend()") == 0
    hub.execute("UPDATE audius_challenges.share_node SET number = number - 1")
    tick(node)
    pair.catch_up()
    with pytest.raises(psycopg.Error, match="is missing"):
        tick(hub)
    before = rows(hub, DERIVED)
    hub.execute("BEGIN")
    hub.execute(
        "INSERT INTO audius_challenges.share_batch (epoch, share, node, number, is_restart, relation, users)"
        " SELECT epoch, share, node, 1000000, TRUE, 'user_challenges', '{}' FROM audius_challenges.share_node"
    )
    hub.execute("SELECT reconcile_challenges()")
    assert rows(hub, "SELECT number, problem FROM audius_challenges.share_node") == [(1000000, None)]
    assert rows(hub, DERIVED) == before
    hub.execute("ROLLBACK")
    node.execute("SELECT audius_challenges.resend()")
    pair.settle()


def test_a_resend_is_refused_during_a_run_and_where_there_is_nothing_to_send(
    pair: Shares, hub: Connection, node: Connection
) -> None:
    with closing(pair.nodes[0].connect()) as other:
        other.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")
        with pytest.raises(psycopg.Error, match="a run of audius_challenges is under way"):
            node.execute("SELECT audius_challenges.resend()")
    with pytest.raises(psycopg.Error, match="this server is no node of shares: there is nothing to send"):
        hub.execute("SELECT audius_challenges.resend()")
    with node.transaction(force_rollback=True):
        node.execute("UPDATE audius_challenges.share_sent SET epoch = epoch - 1")
        with pytest.raises(psycopg.Error, match="have not been adopted here: there is nothing to send"):
            node.execute("SELECT audius_challenges.resend()")


def test_a_guarded_node_does_nothing_and_tells_the_primary(pair: Shares, hub: Connection, node: Connection) -> None:
    pair.settle()
    node.execute("ALTER TABLE user_challenges DISABLE TRIGGER USER")
    hub.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 7")
    pair.catch_up()
    before = rows(node, DERIVED)
    with notices(node) as heard:
        tick(node)
    assert len(heard) == 1
    assert "on user_challenges is disabled" in heard[0].message
    assert heard[0].message.endswith(": nothing was done")
    reason = heard[0].message.removesuffix(": nothing was done")
    assert {each: reconciled for each, reconciled in statuses(node).items() if reconciled != ("inactive", reason)} == {}
    assert rows(node, DERIVED) == before
    assert value(node, "SELECT problem FROM audius_challenges.last_tick") == reason
    assert value(node, "SELECT is_running FROM audius_challenges.last_tick") is False
    pair.catch_up()
    tick(hub)
    assert rows(hub, "SELECT says FROM audius_challenges.share_node") == [(reason,)]
    node.execute("ALTER TABLE user_challenges ENABLE TRIGGER USER")
    pair.settle()
    assert rows(hub, "SELECT says FROM audius_challenges.share_node") == [(None,)]
    assert value(node, "SELECT problem FROM audius_challenges.last_tick") is None
    assert rows(hub, DERIVED) == rows(node, DERIVED)


def test_a_challenge_that_fails_on_the_node_is_known_on_the_primary(
    pair: Shares, hub: Connection, node: Connection
) -> None:
    says = "SELECT says, problem FROM audius_challenges.share_node"
    node.execute("ALTER TABLE challenge_profile_completion RENAME COLUMN follows TO followed")
    with pytest.raises(psycopg.Error, match="1 of 22 challenges failed: p"):
        tick(node)
    pair.catch_up()
    tick(hub)
    assert rows(hub, says) == [("failing: p", None)]
    node.execute("ALTER TABLE challenge_profile_completion RENAME COLUMN followed TO follows")
    pair.settle()
    assert rows(hub, says) == [(None, None)]


def test_completions_are_limited_on_the_primary_alone(pair: Shares, hub: Connection, node: Connection) -> None:
    verified = "SELECT count(*) FROM user_challenges WHERE challenge_id = 'v' AND user_id > 20"
    hub.execute("SELECT build.person(20 + n, is_verified => TRUE) FROM generate_series(1, 3) AS n")
    pair.catch_up()
    node.execute("SET audius_challenges.max_completions = 0")
    tick(node)
    assert value(node, verified) == 3
    pair.catch_up()
    hub.execute("SET audius_challenges.max_completions = 2")
    with pytest.raises(psycopg.Error, match='challenge "v" would complete at least 3 rewards in one run'):
        tick(hub)
    assert value(hub, verified) == 0
    hub.execute("SET audius_challenges.max_completions = 3")
    tick(hub)
    assert value(hub, verified) == 3


def test_rows_that_come_late_are_found_by_numbers_that_were_drawn_long_ago(
    pair: Shares, hub: Connection, node: Connection
) -> None:
    """A transaction that was open for long on the primary: its rows come when many others have come long since."""
    hub.execute("SELECT build.track(10000 + n, 12, blocknumber => 10000 + n) FROM generate_series(1, 600) AS n")
    pair.settle()
    node.execute("SET audius_challenges.sweep_users = 0")
    hub.execute("SELECT build.person(30), build.person(31)")
    pair.catch_up()
    tick(node)
    hub.execute("SELECT build.track(20000, 30, blocknumber => 6000), build.track(20001, 31, blocknumber => 4000)")
    pair.catch_up()
    tick(node)
    found = "SELECT user_id FROM user_challenges WHERE challenge_id = 'u' AND user_id IN (30, 31) ORDER BY 1"
    assert column(node, found) == [30]
    # The rest is left to the sweep.
    pair.settle()
    assert column(node, found) == column(hub, found) == [30, 31]


def test_a_tick_asks_the_guard_in_each_of_its_transactions(pair: Shares, hub: Connection, node: Connection) -> None:
    """The plan changes while the first challenge has its turn: the others do not have theirs."""
    hub.execute("UPDATE users SET is_verified = TRUE WHERE user_id IN (9, 11)")
    hub.execute("SELECT build.track(90 + n, 9) FROM generate_series(1, 3) AS n")
    pair.catch_up()
    node.execute(
        """
        CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE audius_challenges.share_sent SET share = '1/2';
            RETURN NULL;
        END $$
        """
    )
    # Not on a table that is derived, where the guard lets no other trigger be.
    node.execute(
        "CREATE TRIGGER stop_here AFTER UPDATE ON audius_challenges.processor_state FOR EACH ROW"
        " WHEN (new.challenge_id = 'fp') EXECUTE FUNCTION stop_here()"
    )
    try:
        with notices(node) as heard:
            tick(node)
        assert [each.message for each in heard] == [
            "the user challenges of share 1/2 have been adopted, this node is 0/1: nothing was done"
        ]
        by_now = "SELECT specifier FROM user_challenges WHERE challenge_id = %s AND user_id IN (9, 11) ORDER BY 1"
        assert column(node, by_now, "u") == ["9", "b"]
        assert column(node, by_now, "v") == []
        assert value(node, "SELECT is_running FROM audius_challenges.last_tick") is False
    finally:
        node.execute("DROP FUNCTION stop_here() CASCADE")
        node.execute("UPDATE audius_challenges.share_sent SET share = '0/1'")
        # What was sent as another share's came to nothing: it is of no share of the plan.
        node.execute("SELECT audius_challenges.resend()")
    pair.settle()
    assert rows(hub, DERIVED) == rows(node, DERIVED)


def test_a_beat_names_what_is_behind(pair: Shares, hub: Connection, node: Connection) -> None:
    pair.settle()
    behind = "SELECT behind FROM audius_challenges.share_node"
    assert value(hub, behind) == []
    node.execute("UPDATE audius_challenges.processor_state SET look = NULL WHERE challenge_id = 'p'")
    node.execute("SET audius_challenges.slice_users = 5")
    tick(node)
    pair.catch_up()
    tick(hub)
    assert value(hub, behind) == ["p"]
    # What is inactive is not behind, whatever it had come to.
    node.execute("UPDATE audius_challenges.processor_state SET found_active = FALSE WHERE challenge_id = 'p'")
    hub.execute("UPDATE challenges SET active = FALSE WHERE id = 'p'")
    pair.catch_up()
    tick(node)
    pair.catch_up()
    tick(hub)
    assert value(hub, behind) == []
    hub.execute("UPDATE challenges SET active = TRUE WHERE id = 'p'")
    pair.settle()
    assert value(hub, behind) == []


def test_a_beat_waits_for_a_helper_and_never_the_helper_for_the_beat(pair: Shares, node: Connection) -> None:
    """Whoever has sent something counts next, in the row of the challenge: a tick has it no more when it beats."""
    with closing(pair.nodes[0].connect()) as helper, closing(pair.nodes[0].connect()) as ticking:
        with helper.transaction():
            helper.execute("UPDATE audius_challenges.share_sent SET number = number")
            beside = Beside(ticking, TICK)
            beside.wait_until_blocked(node)
            helper.execute("UPDATE audius_challenges.processor_state SET completed = completed")
        assert beside.finish() is None


def test_a_challenge_of_the_primary_does_not_take_the_blame_for_a_tick_that_was_cut_off(node: Connection) -> None:
    node.execute("UPDATE audius_challenges.last_tick SET is_running = TRUE, began_at = '2026-01-01'")
    tick(node)
    failing = "SELECT challenge_id FROM audius_challenges.processor_state WHERE consecutive_failures > 0"
    assert column(node, failing) == []
    cut_off = "SELECT challenge_id FROM audius_challenges.processor_state WHERE last_error LIKE 'cut off%'"
    assert set(column(node, cut_off)) <= set(SHARED)
    assert {each for each, (status, _) in shown(node).items() if status == "failing"} == set()
