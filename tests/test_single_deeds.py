"""Single deeds: what an earlier service left, what is passed over, set aside, limited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from audius_challenges.challenges import CHALLENGES
from audius_challenges.engine.rule import Rule
from devtools.discovery import Discovery
from tests.sessions import Connection, column, failing, notices, rows, tick, value

AT_ONCE = [
    challenge.id
    for challenge in CHALLENGES
    if isinstance(challenge, Rule) and challenge.is_deed and challenge.completes_at == 1
]
PAID = "SELECT specifier FROM user_challenges WHERE challenge_id = %s AND is_complete ORDER BY specifier"
REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'refused';
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON user_challenges FOR EACH ROW WHEN ({}) EXECUTE FUNCTION refuse();
"""


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a database in which all challenges are active and have run, with nothing in it."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        assert tick(connection) == []
        yield connection


@pytest.mark.parametrize("challenge", AT_ONCE)
def test_a_row_that_is_not_complete_says_that_the_deed_was_paid_before(session: Connection, challenge: str) -> None:
    with session.transaction(force_rollback=True):
        session.execute("SELECT build.qualify(%s, 255)", [challenge])
        session.execute("SELECT FROM reconcile_challenges(full_scan => TRUE)")
        (specifier,) = column(session, PAID, challenge)
    session.execute("SELECT build.qualify(%s, 255)", [challenge])
    session.execute("SELECT build.person(4711)")
    session.execute(
        "INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count)"
        " VALUES (%s, 4711, %s, FALSE, 0)",
        [challenge, specifier],
    )
    tick(session)
    session.execute("SELECT FROM reconcile_challenges(full_scan => TRUE)")
    assert (failing(session), column(session, PAID, challenge)) == ({}, [])
    assert rows(session, "SELECT user_id FROM user_challenges WHERE challenge_id = %s", challenge) == [(4711,)]


def test_starting_from_now_gives_up_the_winners_who_were_not_written(session: Connection) -> None:
    session.execute("SELECT build.qualify_t(255)")
    session.execute(REFUSE.format("new.challenge_id = 't'"))
    tick(session)
    assert value(session, "SELECT count(*) FROM audius_challenges.set_aside WHERE challenge_id = 't'") == 1
    started = "SELECT passed_over FROM audius_challenges.start_from_now('{t}')"
    assert column(session, started) == [1]
    session.execute("DROP TRIGGER refuse ON user_challenges")
    tick(session)
    session.execute("SELECT FROM reconcile_challenges(full_scan => TRUE)")
    assert column(session, PAID, "t") == []


def test_starting_from_now_says_that_no_track_trends(session: Connection) -> None:
    with notices(session) as heard:
        session.execute("SELECT FROM audius_challenges.start_from_now('{t}')")
    assert [notice.message for notice in heard] == [
        'challenge "t": no track trends now, so those that come are not passed over'
    ]


@pytest.mark.parametrize("challenge", AT_ONCE)
def test_deeds_are_passed_over_before_the_challenge_is_in_the_catalog(session: Connection, challenge: str) -> None:
    session.execute("CREATE TABLE removed AS SELECT * FROM challenges WHERE id = %s", [challenge])
    session.execute("DELETE FROM challenges WHERE id = %s", [challenge])
    session.execute("SELECT build.qualify(%s, 255)", [challenge])
    ((found, passed_over),) = rows(session, "SELECT * FROM audius_challenges.start_from_now(%s)", [challenge])
    assert (found, passed_over) == (challenge, 1)
    session.execute("INSERT INTO challenges SELECT * FROM removed")
    tick(session)
    session.execute("SELECT FROM reconcile_challenges(full_scan => TRUE)")
    assert column(session, PAID, challenge) == []


def test_the_limit_over_the_first_round_counts_who_is_due(discovery: Discovery) -> None:
    with closing(discovery.connect()) as session:
        session.execute("SELECT build.qualify_v(1)")
        session.execute("UPDATE challenges SET active = FALSE WHERE id = 't'")
        tick(session)
        session.execute("UPDATE challenges SET active = TRUE WHERE id = 't'")
        session.execute("SELECT count(build.person(n)) FROM generate_series(10001, 10400) AS n")
        session.execute("SET audius_challenges.slice_users = 10")
        session.execute("SET audius_challenges.time_budget = '0ms'")
        session.execute("SET audius_challenges.max_completions = 3")
        for user in range(20, 23):
            session.execute("SELECT build.qualify_t(%s)", [user])
            tick(session)
        session.execute("SELECT build.qualify_t(23)")
        with pytest.raises(Exception, match="would complete at least 4 rewards in its first round"):
            tick(session)
        assert len(column(session, PAID, "t")) == 3


CROWD = """
    SELECT
        count(build.person(10000 + n, blocknumber => 1000)),
        count(build.track(900000 + n, 10000 + n, blocknumber => 1000))
    FROM generate_series(1, 1000) AS n
"""
"""More rows than the change detection keeps in view."""
ANOTHER = {
    "t": "SELECT build.track(77, 2550), build.repost(255, 77), build.track_score(77, 1)",
    "w": """
        SELECT build.person(256, blocknumber => 1), build.track(78, 256, blocknumber => 1);
        UPDATE events SET event_data = jsonb_set(event_data, '{winners}', event_data -> 'winners' || '78')
    """,
    "cp": """
        SELECT
            build.person(256, blocknumber => 1), build.track(78, 2550, blocknumber => 1),
            build.comment(79, 256, 78, blocknumber => 1), build.pin(78, 79)
    """,
}
"""Another deed of whom that challenge examines; of those of cp and w no number tells."""


@pytest.mark.parametrize("challenge", ANOTHER)
def test_a_deed_that_is_set_aside_keeps_no_other_waiting(session: Connection, challenge: str) -> None:
    session.execute(CROWD)
    session.execute("SELECT build.qualify(%s, 255)", [challenge])
    session.execute(REFUSE.format("new.specifier = 'ff:t:9f6' OR new.user_id = 255 AND new.challenge_id <> 't'"))
    tick(session)
    assert value(session, "SELECT count(*) FROM audius_challenges.set_aside WHERE challenge_id = %s", challenge) == 1
    session.execute("SET audius_challenges.sweep_users = 0")
    tick(session)
    session.execute(ANOTHER[challenge])
    session.execute("UPDATE audius_challenges.processor_state SET as_of = now() - INTERVAL '10 minutes'")
    tick(session)
    assert len(column(session, PAID, challenge)) == 1
    session.execute("DROP TRIGGER refuse ON user_challenges")
    session.execute("SET audius_challenges.sweep_users = 5000")
    tick(session)
    assert len(column(session, PAID, challenge)) == 2
    assert value(session, "SELECT count(*) FROM audius_challenges.set_aside WHERE challenge_id = %s", challenge) == 0


@pytest.mark.parametrize("index", ["(owner_id) WHERE pinned_comment_id IS NOT NULL", "(pinned_comment_id)"])
def test_where_an_index_leads_to_pins_they_are_examined_at_every_run(session: Connection, index: str) -> None:
    session.execute(CROWD)
    session.execute("SELECT build.almost_cp(255)")
    tick(session)
    session.execute("SET audius_challenges.sweep_users = 0")
    # The next look goes by the position of this one.
    session.execute(
        "SELECT count(build.track(950000 + n, 10001, blocknumber => 1001)) FROM generate_series(1, 1000) AS n"
    )
    tick(session)
    session.execute("SELECT build.pin(2550, 2550)")
    tick(session)
    assert column(session, PAID, "cp") == []
    session.execute(f"CREATE INDEX ON tracks {index}")
    tick(session)
    assert column(session, PAID, "cp") == ["ff:9f6"]


def test_a_tick_waits_while_what_was_paid_elsewhere_is_out_of_sight(session: Connection) -> None:
    session.execute("INSERT INTO sol_reward_disbursements VALUES ('a', 0, 1, 1, 'bank', 'm', to_hex(255))")
    tick(session)
    session.execute("ALTER TABLE sol_reward_disbursements RENAME TO away")
    session.execute("SELECT build.qualify_m(255)")
    ((message, hint),) = [(notice.message, notice.hint) for notice in tick(session)]
    assert message.startswith("table sol_reward_disbursements, which was there, is missing")
    assert "reconcile_challenges()" in (hint or "")
    session.execute("ALTER TABLE away RENAME TO sol_reward_disbursements")
    assert tick(session) == []
    assert column(session, PAID, "m") == []
