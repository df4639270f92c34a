"""The primary of shares: what nodes have derived is written as if it had derived it, once, and nothing else is."""

import re
from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.sessions import (
    RUN_LOCK,
    RUN_ORDER,
    Beside,
    Connection,
    column,
    completed,
    failing,
    message_of,
    notices,
    row_versions,
    rows,
    statuses,
    tick,
    value,
)
from tests.shares_by_hand import SHARED, Servers, carry, servers

# What each of them derives, with steps that come and go, and rows of every kind of state.
FIRST = (
    "SELECT build.person(n, name => 'n', is_verified => n % 5 = 0) FROM generate_series(1, 60) AS n",
    "SELECT build.person(-7, is_verified => TRUE)",
    "SELECT build.track(n, n % 20 + 1) FROM generate_series(1, 70) AS n",
    "SELECT build.playlist(n, n) FROM generate_series(1, 60, 4) AS n",
    "SELECT build.follow(n, m) FROM generate_series(1, 30) AS n CROSS JOIN generate_series(31, 36) AS m",
    "SELECT build.save(n, 1), build.repost(n, 1) FROM generate_series(1, 12) AS n",
    "SELECT build.play(n % 9 + 1, 1, timestamp '2026-01-01' + n * INTERVAL '3 hours') FROM generate_series(1, 80) AS n",
    "SELECT build.play(21, 1, timestamp '2026-01-01' + n * INTERVAL '25 hours') FROM generate_series(1, 10) AS n",
)
LATER = (
    "UPDATE tracks SET is_delete = TRUE WHERE track_id % 3 = 0",
    "UPDATE users SET bio = 'b', cover_photo = 'c', profile_picture = 'p' WHERE user_id BETWEEN 5 AND 15",
    "UPDATE users SET is_deactivated = TRUE WHERE user_id IN (6, 25)",
    "UPDATE users SET is_verified = TRUE WHERE user_id % 6 = 0",
    "SELECT build.play(22, 1, timestamp '2026-01-13' + n * INTERVAL '25 hours') FROM generate_series(1, 6) AS n",
)
LAST = (
    "UPDATE users SET is_deactivated = FALSE",
    "SELECT build.play(22, 1, timestamp '2026-01-20 12:00'), build.play(21, 1, timestamp '2026-01-12 04:00')",
    "DELETE FROM follows WHERE follower_user_id % 4 = 1",
    "SELECT build.track(100 + n, n, blocknumber => 101) FROM generate_series(1, 60, 7) AS n",
)
DAYS = ("2026-02-01", "2026-02-02", "2026-02-03", "2026-02-04")


@pytest.fixture
def made(cluster: Cluster, full_template: str) -> Iterator[Servers]:
    """A primary without nodes yet, and a single server beside it."""
    with servers(cluster, full_template) as made:
        yield made


@pytest.fixture
def hub(discovery: Discovery) -> Iterator[Connection]:
    """A primary of one share, whose node is whatever a test sends."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        connection.execute("SELECT build.person(n) FROM generate_series(1, 40) AS n")
        connection.execute("SELECT build.block(1000)")
        connection.execute("SELECT audius_challenges.plan_shares(1)")
        yield connection


def send(
    connection: Connection,
    number: int,
    *found: tuple[int, int, bool],
    challenge: str = "u",
    epoch: int = 1,
    share: str = "0/1",
    is_restart: bool = False,
    node: UUID | None = None,
) -> None:
    """What a node sends of a challenge: of each row user, steps, and whether it is complete."""
    connection.execute(
        """
        INSERT INTO audius_challenges.share_batch
            (epoch, share, node, number, is_restart, relation, challenge_id, users, specifiers, steps, amounts,
             is_complete, created_at, completed_at)
        SELECT
            %(epoch)s, %(share)s, %(node)s, %(number)s, %(is_restart)s, 'user_challenges', %(challenge)s,
            array_agg(users.id), array_agg(to_hex(users.id)), array_agg(users.steps), array_agg(1),
            array_agg(users.is_complete), array_agg(timestamptz '2026-01-01Z'),
            array_agg(CASE WHEN users.is_complete THEN timestamp '2026-01-01' END)
        FROM unnest(%(users)s::bigint[], %(steps)s::integer[], %(complete)s::boolean[])
            AS users (id, steps, is_complete)
        """,
        {
            "epoch": epoch,
            "share": share,
            "node": node,
            "number": number,
            "is_restart": is_restart,
            "challenge": challenge,
            "users": [user for user, _, _ in found],
            "steps": [steps for _, steps, _ in found],
            "complete": [is_complete for _, _, is_complete in found],
        },
    )


def send_beat(connection: Connection, number: int, *behind: str, says: str | None = None, share: str = "0/1") -> None:
    connection.execute(
        "INSERT INTO audius_challenges.share_batch (epoch, share, number, relation, created_at, says, behind)"
        " SELECT epoch, %s, %s, 'beat', '{2026-01-01Z}', %s, %s FROM audius_challenges.share_plan",
        [share, number, says, list(behind)],
    )


def send_streak(connection: Connection, number: int, user: int, last_listen: str, length: int) -> None:
    connection.execute(
        "INSERT INTO audius_challenges.share_batch"
        " (epoch, share, number, relation, challenge_id, users, steps, completed_at)"
        " VALUES (1, '0/1', %s, 'challenge_listen_streak', 'e', ARRAY[%s], ARRAY[%s], ARRAY[%s::timestamp])",
        [number, user, length, last_listen],
    )


def found(connection: Connection, challenge: str = "u") -> list[tuple[str, int, bool]]:
    """The rows of a challenge: specifier, steps, whether complete."""
    query = """
        SELECT specifier, current_step_count, is_complete FROM user_challenges
        WHERE challenge_id = %s ORDER BY user_id
    """
    return rows(connection, query, challenge)


def nodes(connection: Connection) -> list[tuple[str, int, str | None]]:
    return rows(connection, "SELECT share, number, problem FROM audius_challenges.share_node ORDER BY share")


def waiting(connection: Connection) -> int:
    count: int = value(connection, "SELECT count(*) FROM audius_challenges.share_batch")
    return count


def failing_tick(connection: Connection) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        tick(connection)
    return caught.value


@pytest.mark.parametrize("shares", [1, 2, 3])
def test_the_rows_are_those_of_a_single_server(made: Servers, shares: int) -> None:
    for statement in FIRST:
        made.execute(statement)
    made.share(shares)
    for day, changes in zip(DAYS, ((), LATER, LAST, ()), strict=True):
        for statement in changes:
            made.execute(statement)
        made.run(day)
        made.assert_equal()
    assert {row[0] for row in rows(made.hub, "SELECT DISTINCT challenge_id FROM user_challenges")} >= set(SHARED)

    # Nothing has come: nothing is written.
    before = row_versions(made.hub, "public")
    made.run(DAYS[-1])
    assert row_versions(made.hub, "public") == before


def test_the_plan_changes_under_way(made: Servers) -> None:
    """From one server to two nodes, to three, and back to one, with changes in between."""
    for statement in FIRST:
        made.execute(statement)
    made.run(DAYS[0])
    made.assert_equal()
    for shares, day, changes in zip((2, 3, 0), DAYS[1:], (LATER, LAST, ()), strict=True):
        made.share(shares)
        for statement in changes:
            made.execute(statement)
        # Once it catches up, as whoever takes over does: all users once, and then what has changed.
        made.run(day)
        made.run(day)
        made.assert_equal()
    for statement in LATER[2:]:
        made.execute(statement)
    made.run("2026-02-05")
    made.assert_equal()


def test_the_primary_takes_over_what_never_came(made: Servers) -> None:
    """What a node has sent by a former plan is dropped, and derived again: nobody is paid twice or not at all."""
    for statement in FIRST:
        made.execute(statement)
    made.share(2)
    made.run(DAYS[0])
    for statement in LATER:
        made.execute(statement)
    late = []
    for node in made.nodes:
        node.run(DAYS[1])
        late += node.sent()
    carry(made.hub, late[:2])
    made.share(0)
    carry(made.hub, late[2:])
    made.run(DAYS[1])
    made.assert_equal()


def test_of_several_versions_the_last_counts(hub: Connection) -> None:
    send(hub, 1, (1, 1, False), (2, 2, False))
    send(hub, 2, (1, 2, False), (3, 1, False))
    send(hub, 3, (2, 1, False))
    tick(hub)
    assert found(hub) == [("1", 2, False), ("2", 1, False), ("3", 1, False)]
    send(hub, 4, (1, 1, False), (3, 0, False))
    tick(hub)
    assert found(hub) == [("1", 1, False), ("2", 1, False), ("3", 0, False)]
    assert waiting(hub) == 0


def test_a_complete_row_is_final(hub: Connection) -> None:
    hub.execute(
        "INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)"
        " VALUES ('u', 1, '1', TRUE, 3, 7)"
    )
    send(hub, 1, (1, 1, False), (2, 3, True))
    send(hub, 2, (2, 1, False))
    tick(hub)
    assert found(hub) == [("1", 3, True), ("2", 3, True)]
    before = row_versions(hub, "public")
    send(hub, 3, (1, 2, False), (2, 2, False))
    tick(hub)
    assert row_versions(hub, "public") == before
    assert waiting(hub) == 0


def test_the_block_number_is_that_of_the_moment_at_which_it_is_written(hub: Connection) -> None:
    send(hub, 1, (1, 3, True))
    hub.execute("SELECT build.block(2000)")
    tick(hub)
    assert column(hub, "SELECT completed_blocknumber FROM user_challenges") == [2000]


def test_behind_a_gap_nothing_is_written(hub: Connection) -> None:
    send(hub, 1, (1, 1, False))
    send(hub, 4, (2, 1, False))
    send_beat(hub, 5)
    error = failing_tick(hub)
    assert message_of(error) == (
        "audius_challenges: batches 2 to 3 of share 0/1 are missing",
        "On the node whose audius_challenges.share is 0/1: SELECT audius_challenges.resend();",
    )
    assert found(hub) == [("1", 1, False)]
    assert nodes(hub) == [("0/1", 1, "batches 2 to 3 of share 0/1 are missing")]
    assert failing(hub) == {}
    with notices(hub) as heard:
        assert statuses(hub)["u"] == ("ok", None)
    assert [each.message for each in heard] == ["batches 2 to 3 of share 0/1 are missing"]

    # What was late comes, and all is well.
    send(hub, 2, (3, 1, False))
    assert re.search("batch 3 of share 0/1 is missing", str(failing_tick(hub)))
    send(hub, 3, (2, 2, False))
    tick(hub)
    assert found(hub) == [("1", 1, False), ("2", 1, False), ("3", 1, False)]
    assert nodes(hub) == [("0/1", 5, None)]


def test_the_first_batch_is_number_one(hub: Connection) -> None:
    send(hub, 2, (1, 1, False))
    assert re.search("batch 1 of share 0/1 is missing", str(failing_tick(hub)))
    assert found(hub) == []


def test_one_share_does_not_wait_for_another(hub: Connection) -> None:
    hub.execute("SELECT audius_challenges.plan_shares(2)")
    send(hub, 2, (2, 1, False), epoch=2, share="0/2")
    send(hub, 1, (1, 1, False), epoch=2, share="1/2")
    failing_tick(hub)
    assert found(hub) == [("1", 1, False)]


def test_what_is_sent_again_makes_good_what_was_lost(hub: Connection) -> None:
    send(hub, 1, (1, 1, False))
    tick(hub)
    send(hub, 3, (1, 2, False), (2, 1, False))
    failing_tick(hub)
    send(hub, 5, (1, 1, False), (3, 1, False), is_restart=True)
    send(hub, 6, (3, 2, False))
    tick(hub)
    assert found(hub) == [("1", 1, False), ("3", 2, False)]
    assert nodes(hub) == [("0/1", 6, None)]
    assert waiting(hub) == 0


FIRST_NODE, SECOND_NODE = UUID(int=1), UUID(int=2)


def test_what_another_node_of_the_share_sends_is_refused_until_there_is_another_plan(hub: Connection) -> None:
    send(hub, 1, (1, 1, False), node=FIRST_NODE)
    tick(hub)
    # Both in one run: what came of the first one is written; numbers that fit make no difference.
    send(hub, 2, (2, 1, False), node=FIRST_NODE)
    send(hub, 1, (1, 3, True), node=SECOND_NODE)
    send(hub, 2, (3, 3, True), node=SECOND_NODE)
    send(hub, 3, (4, 3, True), node=SECOND_NODE)
    problem = "another node of share 0/1 has adopted in epoch 1"
    error = failing_tick(hub)
    hint = "SELECT audius_challenges.plan_shares(1); on the primary has all nodes adopt anew."
    assert message_of(error) == (f"audius_challenges: {problem}", hint)
    detail = "What came before it was written. What has come after it is dropped: another plan derives it again."
    assert error.diag.message_detail == detail
    assert found(hub) == [("1", 1, False), ("2", 1, False)]

    # For good: nothing that is sent again changes that, and a run by hand says it as well.
    send(hub, 4, (3, 3, True), is_restart=True, node=SECOND_NODE)
    send(hub, 3, (5, 1, False), node=FIRST_NODE)
    for _ in range(2):
        assert problem in str(failing_tick(hub))
        assert (nodes(hub), waiting(hub)) == ([("0/1", 2, problem)], 0)
    with notices(hub) as heard:
        assert statuses(hub)["u"] == ("ok", None)
    assert [(each.message, each.hint) for each in heard] == [(problem, hint)]
    assert found(hub) == [("1", 1, False), ("2", 1, False)]

    # By another plan, whoever comes first is the node.
    hub.execute("SELECT audius_challenges.plan_shares(1)")
    tick(hub)
    assert nodes(hub) == []
    send(hub, 1, (3, 3, True), epoch=2, node=SECOND_NODE)
    tick(hub)
    assert nodes(hub) == [("0/1", 1, None)]
    assert found(hub) == [("1", 1, False), ("2", 1, False), ("3", 3, True)]
    send(hub, 1, (4, 3, True), epoch=2, node=FIRST_NODE)
    assert "another node of share 0/1 has adopted in epoch 2" in str(failing_tick(hub))
    assert len(found(hub)) == 3


def test_behind_a_gap_another_node_is_refused_all_the_same(hub: Connection) -> None:
    send(hub, 2, (1, 1, False), node=FIRST_NODE)
    failing_tick(hub)
    send(hub, 1, (1, 3, True), node=SECOND_NODE)
    assert "another node of share 0/1" in str(failing_tick(hub))
    assert found(hub) == []


def test_a_node_that_begins_anew_with_its_numbers_is_refused_until_it_is_set_up_anew(hub: Connection) -> None:
    """It has gone back to what it was, by a backup: what it would send again is older than what there is."""
    for number in range(1, 5):
        send(hub, number, (number, 1, False), node=FIRST_NODE)
    tick(hub)
    problem = "the node of share 0/1 has gone back to batch 3, after batch 4"
    send(hub, 3, (3, 3, True), node=FIRST_NODE)
    error = failing_tick(hub)
    assert message_of(error) == (
        f"audius_challenges: {problem}",
        (
            "Set the node whose audius_challenges.share is 0/1 up anew: there SELECT audius_challenges.drop_shares()"
            " \\gexec, empty its tables, and join again. Then SELECT audius_challenges.plan_shares(1); on the primary"
            " has all nodes adopt anew."
        ),
    )
    send(hub, 5, (3, 3, True), node=FIRST_NODE, is_restart=True)
    failing_tick(hub)
    send(hub, 1, (3, 3, True), node=SECOND_NODE)
    failing_tick(hub)
    assert (nodes(hub), waiting(hub)) == ([("0/1", 4, problem)], 0)

    # No plan gives it what it lacks.
    hub.execute("SELECT audius_challenges.plan_shares(1)")
    tick(hub)
    send(hub, 1, (3, 3, True), epoch=2, node=FIRST_NODE)
    for _ in range(2):
        assert problem in str(failing_tick(hub))
        assert (nodes(hub), waiting(hub)) == ([("0/1", 0, problem)], 0)
    assert found(hub)[2] == ("3", 1, False)
    # Another one may begin by this plan: nothing was written by it.
    send(hub, 2, (3, 3, True), epoch=2, node=FIRST_NODE)
    send(hub, 1, (3, 2, False), epoch=2, node=SECOND_NODE)
    tick(hub)
    assert nodes(hub) == [("0/1", 1, None)]
    assert found(hub)[2] == ("3", 2, False)


def test_a_resend_of_a_node_whose_numbers_have_gone_back_is_refused(hub: Connection) -> None:
    for number in range(1, 5):
        send(hub, number, (number, 1, False))
    tick(hub)
    send(hub, 4, (1, 3, True), is_restart=True)
    assert "has gone back to batch 4, after batch 4" in str(failing_tick(hub))
    assert found(hub)[0] == ("1", 1, False)


def test_one_share_that_is_refused_does_not_stop_another(hub: Connection) -> None:
    hub.execute("SELECT audius_challenges.plan_shares(2)")
    send(hub, 1, (2, 1, False), epoch=2, share="0/2", node=FIRST_NODE)
    send(hub, 1, (4, 1, False), epoch=2, share="0/2", node=SECOND_NODE)
    send(hub, 1, (1, 1, False), epoch=2, share="1/2", node=SECOND_NODE)
    failing_tick(hub)
    send(hub, 3, (3, 1, False), epoch=2, share="1/2", node=SECOND_NODE)
    error = failing_tick(hub)
    assert message_of(error) == (
        "audius_challenges: another node of share 0/2 has adopted in epoch 2; batch 2 of share 1/2 is missing",
        (
            "SELECT audius_challenges.plan_shares(2); on the primary has all nodes adopt anew. On the node whose"
            " audius_challenges.share is 1/2: SELECT audius_challenges.resend();"
        ),
    )
    assert found(hub) == [("1", 1, False), ("2", 1, False)]


def test_nothing_is_taken_of_another_plan(hub: Connection) -> None:
    send(hub, 1, (1, 1, False), epoch=2)
    send(hub, 1, (2, 1, False), share="0/2")
    tick(hub)
    assert (found(hub), nodes(hub), waiting(hub)) == ([], [], 0)
    # By the next plan of the same number of shares, the former one's are of another.
    send(hub, 1, (3, 1, False))
    assert value(hub, "SELECT audius_challenges.plan_shares(1)") == 2
    send(hub, 2, (3, 1, False))
    tick(hub)
    assert (found(hub), nodes(hub), waiting(hub)) == ([], [], 0)


def test_while_the_catalog_says_inactive_what_has_come_waits(hub: Connection) -> None:
    hub.execute("UPDATE challenges SET active = FALSE WHERE id = 'u'")
    send(hub, 1, (1, 3, True))
    send(hub, 2, (1, 1, True), challenge="v")
    tick(hub)
    assert (found(hub), found(hub, "v")) == ([], [("1", 1, True)])
    hub.execute("UPDATE challenges SET active = TRUE")
    tick(hub)
    assert found(hub) == [("1", 3, True)]
    assert waiting(hub) == 0


def test_a_pause_of_e_is_written_by_the_primary(hub: Connection) -> None:
    pauses = "SELECT count(*) FILTER (WHERE ended_at IS NULL), count(*) FROM audius_challenges.pause"
    tick(hub)
    hub.execute("UPDATE challenges SET active = FALSE WHERE id = 'e'")
    tick(hub)
    assert rows(hub, pauses) == [(1, 1)]
    hub.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
    tick(hub)
    assert rows(hub, pauses) == [(0, 1)]


def test_the_state_of_a_streak_only_goes_on(hub: Connection) -> None:
    streaks = "SELECT user_id, last_listen_date::text, listen_streak FROM challenge_listen_streak ORDER BY 1"
    hub.execute("INSERT INTO challenge_listen_streak VALUES (1, '2026-01-05', 4), (2, NULL, 9), (3, '2026-01-05', 4)")
    send_streak(hub, 1, 1, "2026-01-04", 3)
    send_streak(hub, 2, 2, "2026-01-04", 3)
    send_streak(hub, 3, 3, "2026-01-06", 5)
    send_streak(hub, 4, 4, "2026-01-08", 2)
    send_streak(hub, 5, 4, "2026-01-07", 1)
    tick(hub)
    assert rows(hub, streaks) == [
        (1, "2026-01-05 00:00:00", 4),
        (2, "2026-01-04 00:00:00", 3),
        (3, "2026-01-06 00:00:00", 5),
        (4, "2026-01-08 00:00:00", 2),
    ]
    before = row_versions(hub, "public")
    send_streak(hub, 6, 3, "2026-01-06", 5)
    tick(hub)
    assert row_versions(hub, "public")["public.user_challenges"] == before["public.user_challenges"]
    assert rows(hub, streaks)[2] == (3, "2026-01-06 00:00:00", 5)


def refuse(connection: Connection, *users: int) -> None:
    """Has a trigger of the application refuse rows of these users, and of nobody else from now on."""
    connection.execute(
        f"""
        CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF new.user_id = ANY('{{{",".join(map(str, users))}}}'::integer[]) THEN
                RAISE EXCEPTION 'user % has no wallet', new.user_id;
            END IF;
            RETURN new;
        END $$
        """
    )
    connection.execute(
        "CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON user_challenges"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


HELD = (
    "SELECT users, specifiers, steps, number FROM audius_challenges.share_batch WHERE is_held ORDER BY users, relation"
)
ASIDE = "SELECT user_id, error, tries FROM audius_challenges.set_aside ORDER BY user_id"
LONG_AGO = "UPDATE audius_challenges.set_aside SET tried_at = tried_at - INTERVAL '10 minutes'"


def test_one_bad_row_sets_its_user_aside_and_is_kept(hub: Connection) -> None:
    refuse(hub, 2, 4)
    send(hub, 1, *((user, 1, False) for user in range(1, 6)))
    send(hub, 2, (4, 2, False))
    with notices(hub) as heard:
        tick(hub)
    assert [each.message for each in heard] == [
        'challenge "u": user 2 and 1 more set aside: user 2 has no wallet (SQLSTATE P0001)'
    ]
    assert [specifier for specifier, *_ in found(hub)] == ["1", "3", "5"]
    assert rows(hub, HELD) == [([2], ["2"], [1], 1), ([4], ["4"], [2], 2)]
    error = "user {} has no wallet (SQLSTATE P0001)"
    assert rows(hub, ASIDE) == [(2, error.format(2), 1), (4, error.format(4), 1)]

    # Nothing of theirs has come: they are not tried.
    send(hub, 3, (6, 1, False))
    tick(hub)
    assert rows(hub, ASIDE) == [(2, error.format(2), 1), (4, error.format(4), 1)]

    # Something has: of one of them, who is tried with all that he has.
    send(hub, 4, (4, 1, False), (7, 1, False))
    tick(hub)
    assert rows(hub, ASIDE) == [(2, error.format(2), 1), (4, error.format(4), 2)]
    assert rows(hub, HELD) == [([2], ["2"], [1], 1), ([4], ["4"], [1], 4)]
    assert [specifier for specifier, *_ in found(hub)] == ["1", "3", "5", "6", "7"]

    # And by the clock.
    refuse(hub)
    tick(hub)
    assert waiting(hub) == 2
    hub.execute(LONG_AGO)
    tick(hub)
    assert found(hub) == [(f"{user}", 1, False) for user in range(1, 8)]
    assert (rows(hub, ASIDE), waiting(hub)) == ([], 0)


def test_a_full_scan_tries_all_who_are_set_aside(hub: Connection) -> None:
    refuse(hub, 2)
    send(hub, 1, (1, 1, False), (2, 1, False))
    tick(hub)
    refuse(hub)
    hub.execute("SELECT reconcile_challenges('{u}', full_scan => TRUE)")
    assert found(hub) == [("1", 1, False), ("2", 1, False)]
    assert (rows(hub, ASIDE), waiting(hub)) == ([], 0)


def test_who_is_set_aside_is_tried_at_once_when_somebody_deletes_that(hub: Connection) -> None:
    """Also of so many that they would have something in common, were they new."""
    bad = range(101, 161)
    refuse(hub, *bad)
    for number, half in enumerate((bad[:30], bad[30:]), 1):
        send(hub, number, (number, 1, False), *((user, 1, False) for user in half))
        tick(hub)
    again = "DELETE FROM audius_challenges.set_aside"
    hub.execute(again)
    send(hub, 3, (3, 1, False))
    assert tick(hub) == []  # nobody is new
    assert column(hub, "SELECT user_id FROM audius_challenges.set_aside ORDER BY user_id") == list(bad)
    assert (len(rows(hub, HELD)), waiting(hub)) == (60, 60)
    assert [specifier for specifier, *_ in found(hub)] == ["1", "2", "3"]
    refuse(hub, 101)
    hub.execute(again)
    tick(hub)
    assert len(found(hub)) == 62
    assert column(hub, "SELECT user_id FROM audius_challenges.set_aside") == [101]
    assert rows(hub, HELD) == [([101], ["65"], [1], 1)]


def test_who_is_set_aside_keeps_all_his_rows_of_a_challenge(hub: Connection) -> None:
    refuse(hub, 3)
    send_streak(hub, 1, 3, "2026-01-05", 2)
    send(hub, 2, (3, 1, False), (4, 1, False), challenge="e")
    tick(hub)
    assert rows(hub, "SELECT user_id FROM challenge_listen_streak") == []
    assert len(rows(hub, HELD)) == 2
    refuse(hub)
    hub.execute(LONG_AGO)
    tick(hub)
    assert rows(hub, "SELECT user_id, listen_streak FROM challenge_listen_streak") == [(3, 2)]
    assert found(hub, "e") == [("3", 1, False), ("4", 1, False)]
    assert waiting(hub) == 0


def test_who_is_set_aside_and_sent_again_is_held_once(hub: Connection) -> None:
    refuse(hub, 2)
    send(hub, 1, (1, 1, False), (2, 1, False))
    tick(hub)
    send(hub, 2, (1, 1, False), (2, 2, False), is_restart=True)
    tick(hub)
    assert rows(hub, HELD) == [([2], ["2"], [2], 2)]
    refuse(hub)
    hub.execute(LONG_AGO)
    tick(hub)
    assert found(hub) == [("1", 1, False), ("2", 2, False)]


def test_an_error_that_is_not_one_users_fails_the_challenge_and_nothing_is_lost(hub: Connection) -> None:
    send(hub, 1, (1, 1, False))
    hub.execute("ALTER TABLE user_challenges RENAME COLUMN amount TO value")
    failing_tick(hub)
    assert waiting(hub) == 1
    hub.execute("ALTER TABLE user_challenges RENAME COLUMN value TO amount")
    tick(hub)
    assert found(hub) == [("1", 1, False)]
    assert failing(hub) == {}


def test_completions_are_limited_in_each_run(hub: Connection) -> None:
    hub.execute("SELECT build.qualify_m(50)")
    tick(hub)  # Something is completed, so that no first build is exempt any more.
    hub.execute("UPDATE audius_challenges.processor_state SET is_exempt = FALSE, sweep_rounds = 1")
    hub.execute("SET audius_challenges.max_completions = 3")
    send(hub, 1, *((user, 3, True) for user in range(1, 4)))
    tick(hub)
    assert len(found(hub)) == 3
    send(hub, 2, *((user, 3, True) for user in range(4, 8)))
    send(hub, 3, (1, 1, True), challenge="v")
    assert re.search('challenge "u" would complete at least 4 rewards in one run', str(failing_tick(hub)))
    assert (len(found(hub)), len(found(hub, "v")), waiting(hub)) == (3, 1, 1)
    hub.execute("SET audius_challenges.max_completions = 4")
    assert statuses(hub, "reconcile_challenges('{u}', full_scan => true)") == {"u": ("ok", None)}
    assert (len(found(hub)), waiting(hub)) == (7, 0)


def test_a_first_round_is_limited_as_a_whole(hub: Connection) -> None:
    hub.execute(
        "INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)"
        " VALUES ('p1', 1, 'paid before', TRUE, 1, 1)"
    )
    hub.execute("SET audius_challenges.max_completions = 10")
    tick(hub)
    for number in range(2):
        send(hub, 2 * number + 1, *((8 * number + user, 3, True) for user in range(1, 9)))
        send_beat(hub, 2 * number + 2, "u")
        if not number:
            tick(hub)
    completed = "SELECT count(*) FROM user_challenges WHERE challenge_id = 'u' AND is_complete"
    assert "would complete at least 16 rewards in its first round" in str(failing_tick(hub))
    assert value(hub, completed) == 8

    # A person lets it pass: what comes then is counted anew, until the nodes have examined everybody.
    hub.execute("SET audius_challenges.max_completions = 100")
    hub.execute("SELECT reconcile_challenges('{u}', full_scan => TRUE)")
    hub.execute("SET audius_challenges.max_completions = 10")
    assert value(hub, completed) == 16
    for number in (5, 7):
        send(hub, number, *((8 * number + user, 3, True) for user in range(1, 9)))
        send_beat(hub, number + 1)
        tick(hub)
    assert value(hub, completed) == 32


def test_a_first_build_is_exempt_until_every_node_has_done_it(hub: Connection) -> None:
    exempt = "SELECT is_exempt FROM audius_challenges.processor_state WHERE challenge_id = 'u'"
    hub.execute("SELECT audius_challenges.plan_shares(2)")
    hub.execute("SET audius_challenges.max_completions = 0")
    send(hub, 1, (2, 3, True), epoch=2, share="0/2")
    send_beat(hub, 2, "e", share="0/2")
    tick(hub)
    assert value(hub, exempt) is True  # Nothing has been heard of the other one.
    send(hub, 1, (1, 3, True), epoch=2, share="1/2")
    send_beat(hub, 2, "u", share="1/2")
    tick(hub)
    assert value(hub, exempt) is True
    send(hub, 3, (3, 3, True), epoch=2, share="1/2")
    send_beat(hub, 4, share="1/2")
    tick(hub)
    assert (len(found(hub)), value(hub, exempt)) == (3, False)
    send(hub, 5, (5, 3, True), epoch=2, share="1/2")
    assert "max_completions is 0" in str(failing_tick(hub))


def send_many(connection: Connection, number: int, first: int, steps: int) -> None:
    """A batch of 20,000 users from one on."""
    connection.execute(
        """
        INSERT INTO audius_challenges.share_batch
            (epoch, share, number, relation, challenge_id, users, specifiers, steps, amounts, is_complete, created_at,
             completed_at)
        SELECT
            1, '0/1', %(number)s, 'user_challenges', 'u', array_agg(n), array_agg(to_hex(n)), array_agg(%(steps)s),
            array_agg(1), array_agg(FALSE), array_agg(now()), array_agg(NULL::timestamp)
        FROM generate_series(%(first)s, %(first)s + 19999) AS n
        """,
        {"number": number, "first": first, "steps": steps},
    )


def test_a_tick_goes_on_while_there_is_more(hub: Connection) -> None:
    """A turn takes batches of some fifty thousand rows, in their order."""
    for number in range(1, 5):
        send_many(hub, number, 1, number)
    hub.execute("SET audius_challenges.time_budget = '0s'")
    tick(hub)
    steps = "SELECT DISTINCT current_step_count FROM user_challenges"
    assert (column(hub, steps), waiting(hub)) == ([3], 1)
    send_many(hub, 6, 1, 6)
    send_many(hub, 5, 1, 5)
    hub.execute("RESET audius_challenges.time_budget")
    tick(hub)
    assert (column(hub, steps), waiting(hub)) == ([6], 0)


def send_listens(connection: Connection, number: int, users: list[int], last_listen: str, length: int) -> None:
    """What a node sends of a slice: the states of streaks that began on 2026-01-01, and then their rows."""
    values = {"number": number, "users": users, "length": length, "last_listen": last_listen}
    connection.execute(
        """
        INSERT INTO audius_challenges.share_batch
            (epoch, share, number, relation, challenge_id, users, steps, completed_at)
        SELECT 1, '0/1', %(number)s, 'challenge_listen_streak', 'e',
            array_agg(id), array_agg(%(length)s::integer), array_agg(%(last_listen)s::timestamp)
        FROM unnest(%(users)s::bigint[]) AS users (id)
        """,
        values,
    )
    connection.execute(
        """
        INSERT INTO audius_challenges.share_batch
            (epoch, share, number, relation, challenge_id, users, specifiers, steps, amounts, is_complete, created_at,
             completed_at)
        SELECT 1, '0/1', %(number)s + 1, 'user_challenges', 'e',
            array_agg(id), array_agg(to_hex(id) || '2026010112'), array_agg(%(length)s::integer), array_agg(7),
            array_agg(%(length)s = 7), array_agg(timestamptz '2026-01-01 12:00Z'),
            array_agg(CASE WHEN %(length)s = 7 THEN %(last_listen)s::timestamp END)
        FROM unnest(%(users)s::bigint[]) AS users (id)
        """,
        values,
    )


def test_no_turn_ends_between_the_states_of_streaks_and_their_rows(hub: Connection) -> None:
    # So many that a turn would end after the states of the second slice.
    hub.execute(
        "SELECT build.play(5, 1, timestamp '2025-12-31 12:00' + n * INTERVAL '1 day') FROM generate_series(1, 7) n"
    )
    send_listens(hub, 1, list(range(100, 24_100)), "2026-01-01 12:00", 1)
    send_listens(hub, 3, [5, *range(30_000, 54_000)], "2026-01-07 12:00", 7)
    send_listens(hub, 5, [6], "2026-01-02 12:00", 2)

    hub.execute("SELECT reconcile_challenges('{e}')")
    paid = "SELECT specifier, is_complete FROM user_challenges WHERE challenge_id = 'e' AND user_id = 5"
    assert rows(hub, paid) == [("52026010112", True)]
    assert value(hub, "SELECT count(*) FROM challenge_listen_streak") == 48_001
    assert column(hub, "SELECT number FROM audius_challenges.share_batch ORDER BY number") == [5, 6]
    # What waits is dropped, and the primary derives whatever has no state yet.
    hub.execute("SELECT audius_challenges.plan_shares(0)")
    hub.execute("SELECT reconcile_challenges(full_scan => TRUE)")
    assert rows(hub, paid) == [("52026010112", True)]


def test_states_of_new_and_of_known_listeners_are_not_parted_from_their_rows(hub: Connection) -> None:
    """A write of a node that inserts and updates fires two triggers: it sends two batches of states, two of rows."""
    hub.execute(
        "SELECT build.play(5, 1, timestamp '2025-12-31 12:00' + n * INTERVAL '1 day') FROM generate_series(1, 7) n"
    )
    send_listens(hub, 1, list(range(100, 24_100)), "2026-01-01 12:00", 1)
    send_listens(hub, 3, [5, *range(30_000, 54_000)], "2026-01-07 12:00", 7)
    send_listens(hub, 4, [60_000], "2026-01-07 12:00", 7)
    # States 3 and 4, rows 5 and 6: as they were sent, rows are 4 and 5.
    hub.execute(
        "UPDATE audius_challenges.share_batch SET number = CASE cardinality(users) WHEN 1 THEN 6 ELSE 5 END"
        " WHERE number > 3 AND relation = 'user_challenges'"
    )
    sent = "SELECT relation FROM audius_challenges.share_batch WHERE number > 2 ORDER BY number"
    assert column(hub, sent) == [*["challenge_listen_streak"] * 2, *["user_challenges"] * 2]

    hub.execute("SELECT reconcile_challenges('{e}')")
    hub.execute("SELECT audius_challenges.plan_shares(0)")
    hub.execute("SELECT reconcile_challenges(full_scan => TRUE)")
    assert rows(hub, "SELECT specifier, is_complete FROM user_challenges WHERE challenge_id = 'e' AND user_id = 5") == [
        ("52026010112", True)
    ]


def test_one_run_takes_all_of_it_with_a_full_scan(hub: Connection) -> None:
    for number in range(1, 5):
        send_many(hub, number, number * 20000, 1)
    ((examined, inserted),) = rows(
        hub, "SELECT users_examined, rows_inserted FROM reconcile_challenges('{u}', full_scan => TRUE)"
    )
    assert (examined, inserted, waiting(hub)) == (80000, 80000, 0)


def test_a_dry_run_takes_nothing(hub: Connection) -> None:
    send(hub, 1, (1, 1, False))
    assert rows(hub, "SELECT rows_inserted FROM reconcile_challenges('{u}', dry_run => TRUE)") == [(1,)]
    assert (found(hub), nodes(hub), waiting(hub)) == ([], [], 1)


def test_nothing_is_derived_where_nodes_do(hub: Connection) -> None:
    hub.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 3")
    hub.execute("SELECT build.qualify_m(50)")
    hub.execute("SELECT reconcile_challenges(full_scan => TRUE)")
    assert found(hub, "v") == []
    assert completed(hub, "m") == ["32"]
    # Back to one: everybody is examined.
    hub.execute("SELECT audius_challenges.plan_shares(0)")
    tick(hub)
    assert completed(hub, "v") == ["3"]


def test_start_from_now_is_refused_where_nodes_derive(hub: Connection) -> None:
    others = ",".join(each for each in RUN_ORDER if each not in SHARED)
    with pytest.raises(psycopg.Error) as caught:
        hub.execute("SELECT audius_challenges.start_from_now()")
    message, hint = message_of(caught.value)
    assert message == "audius_challenges: nodes of shares derive u, fp, p, v, e, and follow changes already"
    assert hint == (
        f"SELECT * FROM audius_challenges.start_from_now('{{{others}}}'); or, for all: SELECT"
        " audius_challenges.plan_shares(0); start from now, and plan the shares again."
    )
    hub.execute(f"SELECT audius_challenges.start_from_now('{{{others}}}')")
    hub.execute("SELECT audius_challenges.plan_shares(0)")
    hub.execute("SELECT audius_challenges.start_from_now()")


def test_a_plan_waits_for_the_run_that_is_under_way(hub: Connection, discovery: Discovery) -> None:
    with closing(discovery.connect()) as other, closing(discovery.connect()) as third:
        other.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")
        planning = Beside(third, "SELECT audius_challenges.plan_shares(3)")
        planning.wait_until_blocked(hub)
        other.execute(f"SELECT pg_advisory_unlock({RUN_LOCK})")
        assert planning.finish() is None
    assert rows(hub, "SELECT epoch, shares FROM audius_challenges.share_plan") == [(2, 3)]


def test_a_plan_is_refused_where_it_makes_no_sense(hub: Connection) -> None:
    with pytest.raises(psycopg.Error, match="shares must be between 0 and 1000, not -1"):
        hub.execute("SELECT audius_challenges.plan_shares(-1)")
    with pytest.raises(psycopg.Error, match="shares must not be null"):
        hub.execute("SELECT audius_challenges.plan_shares(NULL)")
    hub.execute("SET audius_challenges.share = '0/2'")
    with pytest.raises(psycopg.Error) as caught:
        hub.execute("SELECT audius_challenges.plan_shares(2)")
    assert message_of(caught.value) == (
        "audius_challenges: this server is a node of shares: the plan is made on the primary",
        "Call it there: SELECT audius_challenges.plan_shares(2);",
    )


def test_the_primary_beats_once_a_tick_while_there_are_shares(hub: Connection) -> None:
    beats = "SELECT min(number), max(number), count(*) FROM audius_challenges.share_beat"
    assert rows(hub, beats) == [(1, 100, 100)]  # from the first plan on
    tick(hub)
    tick(hub)
    assert rows(hub, beats) == [(3, 102, 100)]
    hub.execute("SELECT audius_challenges.plan_shares(1)")
    tick(hub)
    assert rows(hub, beats) == [(4, 103, 100)]
    hub.execute("SELECT audius_challenges.plan_shares(0)")
    tick(hub)
    assert rows(hub, beats) == [(4, 103, 100)]


def test_what_a_node_says_is_remembered(hub: Connection) -> None:
    send_beat(hub, 1, "e", "p", says="table users is still being copied (state d)")
    tick(hub)
    said = "SELECT share, beat_at, says, behind FROM audius_challenges.share_node"
    ((share, at, says, behind),) = rows(hub, said)
    assert (share, says, behind) == ("0/1", "table users is still being copied (state d)", ["e", "p"])
    assert at.isoformat() == "2026-01-01T00:00:00+00:00"
    send(hub, 2, (1, 1, False))
    tick(hub)
    assert rows(hub, said)[0][2:] == (says, behind)
    send_beat(hub, 3)
    tick(hub)
    assert rows(hub, said)[0][2:] == (None, [])


def test_a_role_with_grant_run_absorbs(hub: Connection, discovery: Discovery) -> None:
    hub.execute("CREATE ROLE absorbing_role LOGIN")
    try:
        hub.execute("SELECT audius_challenges.grant_run('absorbing_role')")
        hub.execute("GRANT ALL ON user_challenges_log, user_challenges_log_id_seq TO absorbing_role")
        refuse(hub, 2)
        send(hub, 1, (1, 1, False), (2, 1, False))
        send_streak(hub, 2, 1, "2026-01-05", 2)
        send_beat(hub, 3)
        with closing(discovery.connect("absorbing_role")) as role:
            tick(role)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                role.execute("SELECT audius_challenges.plan_shares(0)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                role.execute("SELECT audius_challenges.resend()")
        assert found(hub) == [("1", 1, False)]
        assert rows(hub, HELD) == [([2], ["2"], [1], 1)]
    finally:
        hub.execute("DROP OWNED BY absorbing_role; DROP ROLE absorbing_role")


def test_a_table_that_is_not_sent_home_and_a_node_without_a_share_are_refused(hub: Connection) -> None:
    hub.execute(
        "CREATE TRIGGER send AFTER INSERT ON user_challenges REFERENCING NEW TABLE AS written"
        " FOR EACH STATEMENT EXECUTE FUNCTION audius_challenges.send_share()"
    )
    insert = "INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete) VALUES ('u', 1, '1', FALSE)"
    with pytest.raises(psycopg.Error, match="this node has not adopted the user challenges of its share"):
        hub.execute(insert)
    hub.execute("INSERT INTO audius_challenges.share_sent VALUES (TRUE, '0/1', 1, 0)")
    hub.execute("INSERT INTO user_challenges SELECT * FROM user_challenges WHERE FALSE")
    assert value(hub, "SELECT number FROM audius_challenges.share_sent") == 0
    hub.execute(insert)
    assert value(hub, "SELECT number FROM audius_challenges.share_sent") == 1
    assert waiting(hub) == 0
    hub.execute(
        "CREATE TRIGGER send AFTER INSERT ON saves REFERENCING NEW TABLE AS written"
        " FOR EACH STATEMENT EXECUTE FUNCTION audius_challenges.send_share()"
    )
    with pytest.raises(psycopg.Error) as caught:
        hub.execute("SELECT build.save(1, 1)")
    assert message_of(caught.value) == ("rows of saves are not sent home", "DROP TRIGGER send ON public.saves;")
