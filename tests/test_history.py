"""What runs leave in challenge_history, and what is kept of each day: exactly what was written, whatever happens.

Idle ticks leave nothing: that is held by test_runs.py, and here in rows.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from audius_challenges.engine.totals import STEP
from devtools.discovery import Discovery
from tests.sessions import (
    TICK,
    Beside,
    Connection,
    column,
    failing,
    let_p_wait,
    rows,
    statuses,
    tick,
    until,
    value,
)

HISTORY = """
    SELECT challenge_id, status, users_examined, rows_inserted, rows_updated, rows_completed, users_set_aside, runs
    FROM challenge_history
    ORDER BY started_at, challenge_id
"""
DAYS = """
    SELECT day::text, challenge_id, completions, amount::integer, is_backfilled
    FROM audius_challenges.challenge_day
"""
TODAY = "SELECT (now() AT TIME ZONE 'UTC')::date::text"

# As anybody would count them who may read all rows.
FROM_THE_ROWS = """
    SELECT coalesce(completed_at, created_at AT TIME ZONE 'UTC')::date, challenge_id::text, count(*), sum(amount)
    FROM user_challenges
    WHERE is_complete
    GROUP BY 1, 2
    ORDER BY 1, 2
"""
KEPT = "SELECT day, challenge_id, completions, amount FROM audius_challenges.challenge_day ORDER BY day, challenge_id"

REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {body}
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON user_challenges FOR EACH ROW
    WHEN ({condition}) EXECUTE FUNCTION refuse();
"""
MEND = "DROP FUNCTION refuse() CASCADE"


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh database."""
    with closing(discovery.connect()) as connection:
        yield connection


def verified(connection: Connection, *users: int) -> None:
    """Users who complete v, and nothing else."""
    connection.execute("SELECT build.person(n, is_verified => TRUE) FROM unnest(%s) AS n", (list(users),))


def history(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, HISTORY)


def assert_counted(connection: Connection) -> None:
    """What is kept of the days is what the rows say."""
    assert rows(connection, KEPT) == rows(connection, FROM_THE_ROWS)


# A row for each run and challenge that did something


@pytest.mark.parametrize("run", [TICK, "SELECT FROM reconcile_challenges()"])
def test_a_run_that_writes_leaves_a_row_and_an_idle_one_none(session: Connection, run: str) -> None:
    verified(session, 1, 2, 3)
    session.execute(run)
    assert history(session) == [("v", "ok", 3, 3, 0, 3, 0, 1)]
    days = [(value(session, TODAY), "v", 3, 15, False)]
    assert rows(session, DAYS) == days

    session.execute(run)
    session.execute(run)
    assert len(history(session)) == 1
    assert rows(session, DAYS) == days

    session.execute("SELECT build.track(n, 4, blocknumber => 99000000) FROM generate_series(1, 2) AS n")
    verified(session, 4)
    session.execute(run)
    assert [(row[0], row[3], row[5]) for row in history(session)[1:]] == [("u", 1, 0), ("v", 1, 1)]
    session.execute("SELECT build.track(3, 4, blocknumber => 99000000)")
    session.execute(run)
    assert history(session)[-1] == ("u", "ok", 4, 0, 1, 1, 0, 1)
    assert_counted(session)
    query = "SELECT bool_and(duration > '0' AND ended_at >= started_at + duration * 0.5) FROM challenge_history"
    assert value(session, query) is True


def test_a_dry_run_leaves_nothing(session: Connection) -> None:
    verified(session, 1)
    session.execute("UPDATE challenges SET amount = 'five' WHERE id = 'p'")
    found = rows(session, "SELECT challenge_id, rows_completed FROM reconcile_challenges(dry_run => TRUE)")
    assert ("v", 1) in found
    assert history(session) == rows(session, DAYS) == []
    assert rows(session, "SELECT * FROM audius_challenges.day_backfill") == []


def test_a_first_build_in_slices_is_one_row(session: Connection) -> None:
    session.execute("SET audius_challenges.slice_users = 4")
    verified(session, *range(1, 31))
    tick(session)
    assert history(session) == [("v", "ok", 30, 30, 0, 30, 0, 1)]
    assert_counted(session)


def test_what_started_from_now_is_told(session: Connection) -> None:
    verified(session, 1)
    found = column(session, "SELECT challenge_id FROM audius_challenges.start_from_now(dry_run => TRUE)")
    assert history(session) == []
    session.execute("SELECT audius_challenges.start_from_now()")
    assert [row[:4] for row in history(session)] == [(challenge, "started from now", 0, 0) for challenge in found]
    session.execute("SET audius_challenges.sweep_users = 0")
    verified(session, 2)
    tick(session)
    assert history(session)[-1] == ("v", "ok", 1, 1, 0, 1, 0, 1)
    assert_counted(session)


def test_users_who_are_set_aside_are_told_once(session: Connection) -> None:
    session.execute(REFUSE.format(body="RAISE 'user % has no wallet', new.user_id;", condition="new.user_id IN (2, 3)"))
    verified(session, 2, 3)
    tick(session)
    assert history(session) == [("v", "ok", 2, 0, 0, 0, 2, 1)]
    tick(session)
    tick(session)
    assert value(session, "SELECT min(tries) FROM audius_challenges.set_aside") == 3
    assert len(history(session)) == 1


# Failures


def test_an_error_that_goes_on_is_one_row(session: Connection) -> None:
    verified(session, 1)
    session.execute("UPDATE challenges SET amount = 'five' WHERE id = 'v'")
    for _ in range(3):
        statuses(session)
    assert history(session) == [("v", "failed", 0, 0, 0, 0, 0, 3)]
    lasted = """
        SELECT ended_at > started_at AND error = last_error
        FROM challenge_history
        INNER JOIN challenge_status USING (challenge_id)
    """
    assert value(session, lasted) is True

    # Another error is another row; so is the same one after a success.
    session.execute("UPDATE challenges SET amount = '-1' WHERE id = 'v'")
    statuses(session)
    statuses(session)
    assert [row[1::6] for row in history(session)] == [("failed", 3), ("failed", 2)]
    session.execute("UPDATE challenges SET amount = '5' WHERE id = 'v'")
    statuses(session)
    session.execute("UPDATE challenges SET amount = '-1' WHERE id = 'v'")
    statuses(session)
    assert [(row[1], row[5], row[7]) for row in history(session)] == [
        ("failed", 0, 3),
        ("failed", 0, 2),
        ("ok", 1, 1),
        ("failed", 0, 1),
    ]


def test_an_error_is_the_same_whatever_numbers_are_in_it(session: Connection) -> None:
    tick(session)
    session.execute("SET audius_challenges.max_completions = 1")
    for users in ((1, 2), (3, 4, 5)):
        verified(session, *users)
        statuses(session)
    assert history(session) == [("v", "failed", 0, 0, 0, 0, 0, 2)]
    assert "at least 5 rewards" in value(session, "SELECT error FROM challenge_history")
    assert rows(session, KEPT) == []


def test_a_tick_that_was_cut_off_is_told_as_long_as_it_happens(discovery: Discovery) -> None:
    with closing(discovery.connect()) as observer:
        verified(observer, 1)
        observer.execute(REFUSE.format(body="PERFORM pg_sleep(600); RETURN new;", condition="new.user_id = 1"))
        for _ in range(2):
            with closing(discovery.connect()) as connection:
                connection.execute("SET statement_timeout = '1500ms'")
                with pytest.raises(psycopg.errors.QueryCanceled):
                    connection.execute(TICK)
        assert [(row[0], row[1], row[7]) for row in history(observer)] == [("v", "failed", 2)]
        assert value(observer, "SELECT error LIKE 'cut off %' AND duration IS NULL FROM challenge_history") is True
        assert rows(observer, KEPT) == rows(observer, FROM_THE_ROWS) == []


def test_slices_before_a_failure_stay_counted(session: Connection) -> None:
    session.execute("SET audius_challenges.slice_users = 4")
    verified(session, *range(1, 11))
    session.execute(REFUSE.format(body="RAISE insufficient_privilege;", condition="new.user_id = 10"))
    with pytest.raises(psycopg.Error):
        session.execute(TICK)
    (row,) = history(session)
    assert row[:2] == ("v", "failed")
    assert row[3] == row[5] == value(session, "SELECT count(*) FROM user_challenges") == 8
    assert_counted(session)


# Exact, whatever crashes


def test_rewards_their_history_and_their_day_come_together(discovery: Discovery) -> None:
    with closing(discovery.connect()) as observer:
        observer.execute("SET audius_challenges.slice_users = 5")
        tick(observer)
        verified(observer, *range(1, 10))
        observer.execute("SELECT build.qualify_p(20)")
        with closing(discovery.connect()) as writer:
            writer.execute("BEGIN")
            statuses(writer)
            assert_counted(writer)
            assert [row[0] for row in history(writer)] == ["p", "v"]
            writer.execute("ROLLBACK")
        assert history(observer) == rows(observer, KEPT) == []

        let_p_wait(observer)
        with closing(discovery.connect()) as connection:
            observer.execute("SELECT pg_advisory_lock(7)")
            beside = Beside(connection, TICK)
            beside.wait_until_blocked(observer)
            observer.execute("SELECT pg_terminate_backend(%s)", (beside.pid,))
            assert beside.finish() is not None
        observer.execute("SELECT pg_advisory_unlock_all()")
        until(lambda: not rows(observer, "SELECT FROM pg_locks WHERE locktype = 'advisory'"), "the end of the session")
        assert_counted(observer)
        tick(observer)
        assert failing(observer) == {}
        assert value(observer, "SELECT count(*) FROM user_challenges WHERE is_complete") >= 10
        assert_counted(observer)


# Days before anybody counted

EARLIER = """
    ALTER TABLE user_challenges DISABLE TRIGGER USER;
    INSERT INTO user_challenges
        (challenge_id, user_id, specifier, is_complete, current_step_count, amount, created_at, completed_at)
    SELECT {challenge!r}, n, to_hex(n), n % 7 <> 0, 1, 5, '2024-01-30 23:30:00-01', CASE WHEN n % 5 <> 0 THEN
        '2024-02-01'::timestamp + n % 3 * INTERVAL '1 day' END
    FROM generate_series({first}, {last}) AS n;
    ALTER TABLE user_challenges ENABLE TRIGGER USER;
"""


def test_what_earlier_services_wrote_is_counted_by_the_day(session: Connection) -> None:
    session.execute(EARLIER.format(challenge="u", first=1, last=200))
    session.execute(EARLIER.format(challenge="e", first=1, last=100))
    verified(session, 1)
    tick(session)
    assert_counted(session)
    found = rows(session, f"{DAYS} WHERE challenge_id = 'e' ORDER BY day")
    # In UTC it is the 31st.
    assert [day for day, *_ in found] == ["2024-01-31", "2024-02-01", "2024-02-02", "2024-02-03"]
    assert all(is_backfilled for *_, is_backfilled in found)
    assert rows(session, f"{DAYS} WHERE challenge_id = 'v'") == [(value(session, TODAY), "v", 1, 5, False)]
    assert {row[0] for row in history(session)} == {"v"}


def test_counting_goes_step_by_step_and_nothing_is_lost_or_doubled(session: Connection) -> None:
    session.execute("UPDATE challenges SET active = id = 'v'")
    session.execute(EARLIER.format(challenge="v", first=1000, last=1000 + 2 * STEP + 100))
    before = value(session, "SELECT count(*) FROM user_challenges WHERE is_complete")
    done = "SELECT is_done FROM audius_challenges.day_backfill WHERE challenge_id = 'v'"
    counted = "SELECT coalesce(sum(completions), 0) FROM audius_challenges.challenge_day WHERE day < '2025-01-01'"
    # Somebody whose row comes before all others, and somebody whose row comes after them, in each run.
    first = last = 0
    seen = []
    while not first or not value(session, done):
        first += 1
        session.execute("SELECT build.person(%s, is_verified => TRUE)", (first,))
        last = 900_000_000 + first
        session.execute("SELECT build.person(%s, is_verified => TRUE)", (last,))
        statuses(session, "reconcile_challenges(ARRAY['v'])")
        seen.append(value(session, counted))
        assert first <= 3
    assert len(seen) == 3
    assert 0 < seen[0] < seen[1] < seen[2] == before
    assert value(session, "SELECT count(*) FROM user_challenges WHERE is_complete") == before + 6
    assert_counted(session)

    # Nor if its state is reset.
    session.execute("DELETE FROM audius_challenges.processor_state")
    verified(session, 7)
    statuses(session, "reconcile_challenges(ARRAY['v'])")
    assert_counted(session)


def test_what_another_writer_completes_is_counted_only_ahead_of_the_counting(session: Connection) -> None:
    session.execute("UPDATE challenges SET active = id = 'v'")
    session.execute(EARLIER.format(challenge="v", first=1000, last=1000 + STEP))
    total = "SELECT coalesce(sum(completions), 0)::integer FROM audius_challenges.challenge_day"
    step, done = "SELECT FROM reconcile_challenges(ARRAY['v'])", "SELECT is_done FROM audius_challenges.day_backfill"
    session.execute(step)
    assert value(session, done) is False
    before = value(session, total)
    session.execute(
        "ALTER TABLE user_challenges DISABLE TRIGGER USER;"
        " INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)"
        " VALUES ('v', 1, '0 behind', TRUE, 1, 5), ('v', 2, 'z ahead', TRUE, 1, 5)"
    )
    ahead = "SELECT count(*) FROM user_challenges WHERE is_complete AND specifier >"
    ahead += " (SELECT counted_to FROM audius_challenges.day_backfill)"
    expected = before + value(session, ahead)
    session.execute(step)
    assert (value(session, done), value(session, total)) == (True, expected)
    session.execute(
        "INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)"
        " VALUES ('v', 3, 'zz late', TRUE, 1, 5)"
    )
    session.execute(step)
    complete = value(session, "SELECT count(*) FROM user_challenges WHERE is_complete")
    assert value(session, total) == expected == complete - 2


def test_a_step_of_counting_stays_though_the_challenge_fails(session: Connection) -> None:
    session.execute(EARLIER.format(challenge="v", first=1, last=10))
    session.execute("UPDATE challenges SET amount = 'five' WHERE id = 'v'")
    statuses(session)
    assert list(failing(session)) == ["v"]
    assert_counted(session)


def test_days_before_an_update_are_counted_after_it(bare_discovery: Discovery) -> None:
    bare_discovery.psql("CREATE EXTENSION audius_challenges VERSION '1.1.0' CASCADE")
    with closing(bare_discovery.connect()) as connection:
        connection.execute("SELECT FROM sync_challenge_catalog()")
        connection.execute(EARLIER.format(challenge="u", first=1, last=100))
        verified(connection, 1, 2)
        connection.execute("SELECT FROM reconcile_challenges()")
        connection.execute("ALTER EXTENSION audius_challenges UPDATE")
        verified(connection, 3)
        tick(connection)
        assert_counted(connection)
        # Those before the update and the one after it are of one day.
        assert rows(connection, f"{DAYS} WHERE challenge_id = 'v'") == [(value(connection, TODAY), "v", 3, 15, True)]
        assert [row[:6] for row in history(connection)] == [("v", "ok", 3, 1, 0, 1)]


def test_a_table_that_is_missing_is_told_by_the_run_and_not_by_the_counting(session: Connection) -> None:
    tick(session)
    session.execute("DELETE FROM audius_challenges.day_backfill")
    session.execute("ALTER TABLE user_challenges RENAME TO moved")
    statuses(session)
    errors = set(failing(session).values())
    assert len(errors) == 1
    assert errors.pop().startswith('table "public.user_challenges" does not exist')


# How long it is kept

AGE = "UPDATE audius_challenges.history SET started_at = started_at - {0}, ended_at = ended_at - {0}"


def test_the_history_is_kept_for_thirty_days_or_as_set(session: Connection) -> None:
    verified(session, 1)
    tick(session)
    session.execute(AGE.format("INTERVAL '29 days 23 hours'"))
    verified(session, 2)
    tick(session)
    assert len(history(session)) == 2
    session.execute(AGE.format("INTERVAL '2 hours'"))
    verified(session, 3)
    tick(session)
    assert len(history(session)) == 2
    session.execute("SET audius_challenges.history_days = '1'")
    session.execute(AGE.format("INTERVAL '25 hours'"))
    verified(session, 4)
    tick(session)
    assert len(history(session)) == 1
    assert value(session, "SELECT sum(completions) FROM audius_challenges.challenge_day") == 4


def test_the_daily_job_trims_what_no_run_comes_to(cron_cluster: Discovery) -> None:
    with closing(cron_cluster.connect()) as connection:
        connection.execute("SELECT FROM unschedule_challenges()")
        verified(connection, 1)
        connection.execute("SELECT FROM reconcile_challenges()")
        connection.execute(AGE.format("INTERVAL '31 days'"))
        connection.execute("SELECT FROM reconcile_challenges()")
        assert len(history(connection)) == 1
        ((command,),) = rows(
            connection, "SELECT command FROM schedule_challenges() WHERE jobname = 'audius_challenges trim'"
        )
        connection.execute(command)
        assert history(connection) == []
        connection.execute("SELECT FROM unschedule_challenges()")
