"""What people see of shares: the view share_status, challenge_status, tick_problem and metrics(), without replication.

The states are those that come about, made by hand; tests/test_shares.py has real nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from devtools.discovery import Discovery
from tests.sessions import RUN_ORDER, Connection, rows, tick, value

SHARED = ["u", "fp", "p", "v", "e"]
NODE = (
    "INSERT INTO audius_challenges.share_node (share, epoch, number, beat_at, says, behind, problem)"
    " VALUES (%s, 1, %s, clock_timestamp() - %s::interval, %s, %s, %s)"
)
PLAN = (
    "INSERT INTO audius_challenges.share_plan (singleton, epoch, shares, challenges, lsn, planned_at)"
    " VALUES (TRUE, %s, %s, '{u,fp,p,v,e}', '0/0', now())"
)
JUST_TICKED = (
    "INSERT INTO audius_challenges.last_tick (singleton, scheduled_at, began_at, ended_at)"
    " VALUES (TRUE, now(), clock_timestamp(), clock_timestamp()) ON CONFLICT (singleton)"
    " DO UPDATE SET began_at = excluded.began_at, ended_at = excluded.ended_at, problem = NULL"
)


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a database that has ticked, all challenges of which are active."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = TRUE")
        tick(connection)
        yield connection


@pytest.fixture
def hub(session: Connection) -> Connection:
    """The same, of which two nodes have just said that they are well."""
    session.execute(PLAN, (1, 2))
    for share in ("0/2", "1/2"):
        session.execute(NODE, (share, 7, "1 s", None, [], None))
    session.execute(JUST_TICKED)
    return session


def shown(connection: Connection, *columns: str) -> list[tuple[object, ...]]:
    """These columns of the view."""
    return rows(connection, f"SELECT {', '.join(columns)} FROM audius_challenges.share_status")


def statuses(connection: Connection) -> dict[str, str]:
    return dict(rows(connection, "SELECT challenge_id, status FROM challenge_status"))


def problem(connection: Connection) -> str | None:
    found: str | None = value(connection, "SELECT DISTINCT tick_problem FROM challenge_status")
    return found


def metrics(connection: Connection, share: str) -> dict[str, float]:
    query = (
        "SELECT replace(name, 'audius_challenges_share_', ''), value FROM audius_challenges.metrics()"
        " WHERE name LIKE 'audius_challenges_share_%%' AND labels ->> 'share' = %s"
    )
    return dict(rows(connection, query, share))


def test_without_shares_there_is_nothing_to_see(session: Connection) -> None:
    assert shown(session, "*") == []
    assert set(statuses(session).values()) == {"ok"}
    assert problem(session) is None
    names = "SELECT count(*) FROM audius_challenges.metrics() WHERE name LIKE '%share%'"
    assert value(session, names) == 0
    session.execute(PLAN, (1, 0))
    assert shown(session, "*") == []
    assert set(statuses(session).values()) == {"ok"}


def test_shares_that_are_well(hub: Connection) -> None:
    columns = ("share", "status", "plan", "epoch", "number", "says", "problem", "subscription", "slot")
    assert shown(hub, *columns) == [
        ("0/2", "ok", 1, 1, 7, None, None, "missing", "missing"),
        ("1/2", "ok", 1, 1, 7, None, None, "missing", "missing"),
    ]
    assert statuses(hub) == dict.fromkeys(RUN_ORDER, "ok")
    assert problem(hub) is None
    found_by_machines = metrics(hub, "0/2")
    assert 1 <= found_by_machines.pop("beat_age_seconds") < 60
    # Neither slot nor subscription is there, of which nobody knows numbers then.
    assert found_by_machines == {
        "stopped": 0,
        "gap": 0,
        "inbox_batches": 0,
        "inbox_rows": 0,
        "held_rows": 0,
        "slot_lost": 0,
    }


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ("says = 'subscription x is disabled'", "stopped", "node 1/2 does nothing: subscription x is disabled"),
        ("beat_at = beat_at - interval '1 hour'", "silent", "node 1/2 has been silent since "),
        ("beat_at = NULL", "missing", "nothing has come from node 1/2 since the plan changed (epoch 1)"),
        ("problem = 'batches 8 to 9 of share 1/2 are missing'", "gap", "batches 8 to 9 of share 1/2 are missing"),
    ],
)
def test_a_share_that_is_not_well_makes_its_challenges_late(
    hub: Connection, change: str, status: str, text: str
) -> None:
    hub.execute(f"UPDATE audius_challenges.share_node SET {change} WHERE share = '1/2'")
    assert shown(hub, "status") == [("ok",), (status,)]
    expected = {challenge: "late" if challenge in SHARED else "ok" for challenge in RUN_ORDER}
    assert statuses(hub) == expected
    assert (problem(hub) or "").startswith(text)
    found = metrics(hub, "1/2")
    assert (found["stopped"], found["gap"]) == (status == "stopped", status == "gap")
    hub.execute("UPDATE challenges SET active = FALSE WHERE id = 'v'")
    assert statuses(hub)["v"] == "inactive"


def test_a_node_from_which_nothing_has_come(hub: Connection) -> None:
    hub.execute("DELETE FROM audius_challenges.share_node WHERE share = '0/2'")
    assert shown(hub, "share", "status", "epoch", "number") == [("0/2", "missing", None, None), ("1/2", "ok", 1, 7)]
    assert problem(hub) == "nothing has come from node 0/2 since the plan changed (epoch 1)"


def test_a_primary_that_does_not_tick_takes_no_node_for_silent(hub: Connection) -> None:
    """Their beats wait for it."""
    hub.execute("UPDATE audius_challenges.share_node SET beat_at = beat_at - interval '1 hour'")
    hub.execute("UPDATE audius_challenges.last_tick SET ended_at = ended_at - interval '1 hour', scheduled_at = NULL")
    assert shown(hub, "status") == [("ok",), ("ok",)]
    assert "the last tick ended at" in (problem(hub) or "")


def test_challenges_that_nodes_have_not_examined_yet(hub: Connection) -> None:
    hub.execute("UPDATE audius_challenges.share_node SET behind = '{e,p}' WHERE share = '0/2'")
    hub.execute("UPDATE audius_challenges.processor_state SET is_exempt = challenge_id = 'e'")
    assert shown(hub, "status", "behind") == [("behind", ["e", "p"]), ("ok", [])]
    found = statuses(hub)
    assert (found["e"], found["p"], found["v"], found["c"]) == ("first build", "catching up", "ok", "ok")
    assert problem(hub) is None


def test_what_waits_is_counted_without_being_read(hub: Connection) -> None:
    """Arrays of any length, in the row or outside of it, as a count of their elements has them."""
    lengths = [0, 1, 2, 13, 14, 15, 16, 100, 249, 250, 300, 1000, 50_000]
    for number, length in enumerate(lengths):
        hub.execute(
            "INSERT INTO audius_challenges.share_batch (epoch, share, number, relation, challenge_id, users, is_held)"
            " SELECT 1, '0/2', %s, 'user_challenges', 'v', ARRAY(SELECT generate_series(1, %s)::bigint), FALSE",
            (8 + number, length),
        )
    hub.execute(
        "INSERT INTO audius_challenges.share_batch (epoch, share, number, relation, says)"
        " VALUES (1, '1/2', 8, 'beat', NULL)"
    )
    hub.execute(
        "INSERT INTO audius_challenges.share_batch (epoch, share, number, relation, challenge_id, users, is_held)"
        " VALUES (1, '1/2', 8, 'user_challenges', 'v', '{1,2,3}', TRUE),"
        " (9, '1/2', 8, 'user_challenges', 'v', '{1,2,3}', FALSE)"
    )
    assert value(hub, "SELECT sum(cardinality(users)) FROM audius_challenges.share_batch WHERE share = '0/2'") == sum(
        lengths
    )
    assert shown(hub, "waiting_batches", "waiting_rows", "held_rows") == [
        (len(lengths), sum(lengths), 0),
        (1, 0, 3),
    ]
    found = metrics(hub, "0/2")
    assert (found["inbox_batches"], found["inbox_rows"], found["held_rows"]) == (len(lengths), sum(lengths), 0)


FINDINGS = "SELECT severity, what, found, expected, statement FROM audius_challenges.doctor()"


def findings(connection: Connection, what: str) -> list[tuple[str, ...]]:
    """What the doctor finds by this name."""
    return [row for row in rows(connection, FINDINGS) if row[1].startswith(what)]


@pytest.mark.parametrize(
    ("change", "what", "found", "expected"),
    [
        ("says = 'x is disabled'", "node 1/2 does nothing", "x is disabled", "audius_challenges.doctor()"),
        ("beat_at = '2026-01-02'", "node 1/2 is silent", "ended at 2026-01-02", "functions.md"),
        ("beat_at = NULL", "nothing has come of node 1/2", "(epoch 1)", "SELECT audius_challenges.plan_shares(0);"),
        ("problem = 'batches 8 to 9'", "share 1/2 is not written", "batches 8 to 9", "audius_challenges.resend();"),
    ],
)
def test_the_doctor_finds_a_node_that_is_not_well(
    hub: Connection, change: str, what: str, found: str, expected: str
) -> None:
    hub.execute(f"UPDATE audius_challenges.share_node SET {change} WHERE share = '1/2'")
    ((severity, _, has, wants, statement),) = findings(hub, what)
    # It is mended on the node, or a person decides.
    assert (severity, statement) == ("critical", "")
    assert found in has
    assert expected in wants
    assert not findings(hub, what.replace("1/2", "0/2"))


def test_the_doctor_finds_what_piles_up(hub: Connection) -> None:
    hub.execute(
        "INSERT INTO audius_challenges.share_batch (epoch, share, number, relation, challenge_id, users)"
        " SELECT 1, '0/2', n, 'user_challenges', 'v', '{1,2}' FROM generate_series(8, 1007) AS n"
    )
    assert findings(hub, "what node 0/2 sends piles up") == []
    hub.execute(
        "INSERT INTO audius_challenges.share_batch (epoch, share, number, relation, challenge_id, users)"
        " VALUES (1, '0/2', 1008, 'user_challenges', 'v', '{3}')"
    )
    ((severity, _, found, _, _),) = findings(hub, "what node 0/2 sends piles up")
    assert (severity, found) == ("warning", "1001 batches of 2001 rows wait")


def test_the_doctor_finds_subscriptions_that_are_missing_and_those_that_are_too_many(hub: Connection) -> None:
    name = "audius_challenges_return_{}_of_{}"
    for of in (2, 3):
        hub.execute(
            f"CREATE SUBSCRIPTION {name.format(1, of)} CONNECTION 'dbname=nowhere' PUBLICATION none"
            " WITH (connect = false, slot_name = NONE)"
        )
        hub.execute(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
            " SELECT oid, 'audius_challenges.share_batch'::regclass, 'r' FROM pg_subscription WHERE subname = %s",
            (name.format(1, of),),
        )
    try:
        ((_, _, found, expected, _),) = findings(hub, f'subscription "{name.format(0, 2)}" receives nothing')
        assert found == "there is none"
        assert "SELECT audius_challenges.receive_share('0/2', '...');" in expected
        ((severity, _, found, _, statement),) = findings(hub, f'subscription "{name.format(1, 2)}" receives nothing')
        assert (severity, found) == ("critical", "it is disabled")
        assert statement == f"ALTER SUBSCRIPTION {name.format(1, 2)} ENABLE;"
        ((severity, _, _, _, statement),) = findings(hub, "a subscription receives a share that the plan")
        assert severity == "warning"
        hub.execute(statement)
        assert findings(hub, "a subscription receives a share that the plan") == []
        assert shown(hub, "subscription") == [("missing",), ("disabled",)]
    finally:
        hub.execute(f"DROP SUBSCRIPTION {name.format(1, 2)}")
        hub.execute(f"DROP SUBSCRIPTION IF EXISTS {name.format(1, 3)}")


@pytest.fixture
def node(session: Connection) -> Connection:
    """A server that is to be the node of a share, and has got no further."""
    session.execute("SET audius_challenges.share = '0/2'")
    return session


def test_a_node_leaves_other_challenges_to_the_primary(node: Connection) -> None:
    for plan in (None, 2, 0):
        if plan is not None:
            node.execute("DELETE FROM audius_challenges.share_plan")
            node.execute(PLAN, (1, plan))
        found = statuses(node)
        assert {challenge for challenge, status in found.items() if status == "elsewhere"} == set(RUN_ORDER) - set(
            SHARED
        )
        assert found["v"] == "ok"
        ((share, status, says),) = shown(node, "share", "status", "says")
        assert (share, status) == ("0/2", "stopped")
        assert says
    node.execute("UPDATE challenges SET active = FALSE WHERE id = 'v'")
    assert statuses(node)["v"] == "inactive"


def test_whoever_may_look_sees_it_and_writes_nothing(hub: Connection) -> None:
    hub.execute("CREATE ROLE reader")
    try:
        hub.execute("SELECT audius_challenges.grant_status('reader')")
        for share in ("", "0/2"):
            hub.execute("SELECT set_config('audius_challenges.share', %s, FALSE)", (share,))
            expected = shown(hub, "share", "status", "says", "subscription", "slot")
            assert expected
            with hub.transaction():
                hub.execute("SET TRANSACTION READ ONLY")
                hub.execute("SET LOCAL ROLE reader")
                assert shown(hub, "share", "status", "says", "subscription", "slot") == expected
                assert statuses(hub)
                assert not [row for row in rows(hub, FINDINGS) if "not checked" in row[1] and "shares" in row[1]]
                assert not [row for row in rows(hub, FINDINGS) if "not checked: the guard" in row[1]]
                assert value(hub, "SELECT pg_current_xact_id_if_assigned()") is None
    finally:
        hub.execute("RESET audius_challenges.share")
        hub.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_who_may_not_look_at_shares_sees_the_rest(hub: Connection) -> None:
    hub.execute("CREATE ROLE reader")
    try:
        hub.execute("SELECT audius_challenges.grant_status('reader')")
        hub.execute("REVOKE SELECT ON audius_challenges.share_plan FROM reader")
        with hub.transaction():
            hub.execute("SET LOCAL ROLE reader")
            assert statuses(hub)["c"] == "ok"
            assert problem(hub) is None
            assert value(hub, "SELECT count(*) FROM audius_challenges.metrics() WHERE name LIKE '%share%'") == 0
    finally:
        hub.execute("DROP OWNED BY reader; DROP ROLE reader")
