"""metrics(): names as OpenMetrics has them, and the same that challenge_status and the tables say."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from audius_challenges.engine.totals import STEP
from devtools import REPOSITORY
from devtools.discovery import Discovery
from tests.sessions import RUN_ORDER, Connection, column, rows, statuses, tick, value

PAGE = REPOSITORY / "docs" / "reference" / "metrics.md"
TRENDING = {"tt", "tut", "tp"}


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh database, with ten users who complete v."""
    with closing(discovery.connect()) as connection:
        connection.execute("SELECT build.person(n, is_verified => TRUE) FROM generate_series(1, 10) AS n")
        yield connection


def of_challenges(connection: Connection, name: str) -> dict[str, float]:
    """A number of every challenge that has it."""
    query = "SELECT labels ->> 'challenge', value FROM audius_challenges.metrics() WHERE name = %s"
    return dict(rows(connection, query, f"audius_challenges_{name}"))


def of_all(connection: Connection, name: str) -> list[float]:
    """A number that has no label; nothing if it is left out."""
    query = "SELECT value FROM audius_challenges.metrics() WHERE name = %s AND labels = '{}'"
    return column(connection, query, f"audius_challenges_{name}")


def schedule(connection: Connection) -> dict[str, float]:
    query = "SELECT labels ->> 'state', value FROM audius_challenges.metrics() WHERE name LIKE '%schedule_state'"
    return dict(rows(connection, query))


def test_names_are_those_of_openmetrics_and_those_of_the_page(session: Connection) -> None:
    session.execute("UPDATE challenges SET active = TRUE")
    tick(session)
    found = rows(session, "SELECT name, labels::text, value FROM audius_challenges.metrics()")
    assert max(Counter(row[:2] for row in found).values()) == 1
    names = {name for name, _, _ in found}
    session.execute(
        "INSERT INTO audius_challenges.share_plan (singleton, epoch, shares, challenges, lsn, planned_at)"
        " VALUES (TRUE, 1, 1, '{u,fp,p,v,e}', '0/0', now())"
    )
    session.execute(
        "INSERT INTO audius_challenges.share_node (share, epoch, number, beat_at) VALUES ('0/1', 1, 1, now())"
    )
    of_shares = set(column(session, "SELECT name FROM audius_challenges.metrics() WHERE labels ? 'share'"))
    # Of connections, which a test without another server has none of; see test_share_views.py.
    of_shares |= {"audius_challenges_share_slot_bytes", "audius_challenges_share_apply_errors_total"}
    names |= of_shares
    described = dict(re.findall(r"^\| `(audius_challenges_\w+)` \| ([\w ]+) \|", PAGE.read_text(), re.MULTILINE))
    assert names | {"audius_challenges_tick_interval_seconds"} == described.keys()
    for name, kind in described.items():
        assert re.fullmatch("audius_challenges(_[a-z]+)+", name)
        assert name.endswith("_total") is (kind == "counter"), name
        assert not re.search("_(count|sum|bucket|created|ms|kb|percent)$", name)


def test_a_database_that_has_never_ticked_leaves_out_what_nobody_knows(session: Connection) -> None:
    assert of_challenges(session, "completions_total") == of_challenges(session, "audio_total") == {}
    assert of_challenges(session, "past_counted") == dict.fromkeys(RUN_ORDER, 0)
    assert of_challenges(session, "last_success_age_seconds") == {}
    assert of_all(session, "tick_age_seconds") == of_all(session, "tick_duration_seconds") == []
    assert schedule(session) == {"ticking": 0, "late": 0, "stopped": 1}


def test_totals_are_those_of_the_rows(session: Connection) -> None:
    session.execute("SELECT build.qualify_p(20)")
    tick(session)
    query = "SELECT challenge_id, count(*), sum(amount) FROM user_challenges WHERE is_complete GROUP BY 1"
    expected = {challenge: (completions, audio) for challenge, completions, audio in rows(session, query)}
    assert expected.keys() >= {"p", "v"}
    for place, name in enumerate(("completions_total", "audio_total")):
        found = of_challenges(session, name)
        assert {challenge: number for challenge, number in found.items() if number} == {
            challenge: numbers[place] for challenge, numbers in expected.items()
        }
    assert set(of_challenges(session, "past_counted").values()) == {1}


def test_totals_are_left_out_until_the_past_is_counted(session: Connection) -> None:
    session.execute("ALTER TABLE user_challenges DISABLE TRIGGER USER")
    session.execute(
        """
        INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)
        SELECT 'tt', n, n::text, TRUE, 1, 1000 FROM generate_series(1, %s) AS n
        """,
        (STEP + 1,),
    )
    session.execute("ALTER TABLE user_challenges ENABLE TRIGGER USER")
    tick(session)
    # Half of it, or so, is no total.
    assert of_challenges(session, "past_counted") == {**dict.fromkeys(RUN_ORDER, 1), "tt": 0}
    for name in ("completions_total", "audio_total"):
        assert of_challenges(session, name).keys() == set(RUN_ORDER) - {"tt"}
    tick(session)
    assert of_challenges(session, "completions_total")["tt"] == STEP + 1
    assert of_challenges(session, "audio_total")["tt"] == 1000 * (STEP + 1)


def test_states_are_those_of_the_view(session: Connection) -> None:
    session.execute("UPDATE challenges SET active = id <> 'e'")
    session.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no wallet'; END$$;
        CREATE TRIGGER refuse BEFORE INSERT ON user_challenges FOR EACH ROW WHEN (new.user_id IN (3, 4))
        EXECUTE FUNCTION refuse();
        """
    )
    tick(session)
    session.execute("UPDATE challenges SET amount = 'five' WHERE id = 'fp'")
    statuses(session)
    statuses(session)
    view = """
        SELECT
            challenge_id, consecutive_failures::float8, users_set_aside::float8, (status = 'failing')::integer::float8,
            (status <> 'inactive')::integer::float8, sweep_rounds::float8
        FROM challenge_status
    """
    names = ("consecutive_failures", "users_set_aside", "failing", "active", "sweep_rounds_total")
    found = {name: of_challenges(session, name) for name in names}
    expected = rows(session, view)
    assert [(challenge, *(found[name][challenge] for name in names)) for challenge in RUN_ORDER] == expected
    assert found["users_set_aside"]["v"] == found["consecutive_failures"]["fp"] == 2
    ages = of_challenges(session, "last_success_age_seconds")
    assert ages.keys() == set(RUN_ORDER)
    assert all(0 <= age < 60 for age in ages.values())
    assert ages["fp"] > ages["p"]


def test_a_sweep_under_way_has_progress_and_a_backlog(session: Connection) -> None:
    for setting in ("sweep_users = 4", "slice_users = 4", "time_budget = '0ms'"):
        session.execute(f"SET audius_challenges.{setting}")
    session.execute("SELECT FROM reconcile_challenges(ARRAY['v'])")
    assert of_challenges(session, "backlog_users")["v"] == 6
    assert of_challenges(session, "sweep_progress_ratio")["v"] == 0.4
    session.execute("SELECT FROM reconcile_challenges(full_scan => TRUE)")
    session.execute("SELECT FROM reconcile_challenges(ARRAY['v'])")
    assert of_challenges(session, "backlog_users").keys() == set(RUN_ORDER) - TRENDING
    assert set(of_challenges(session, "backlog_users").values()) == {0}
    assert of_challenges(session, "sweep_progress_ratio")["v"] == 0.4


def test_ticks_and_the_schedule(cron_cluster: Discovery) -> None:
    with closing(cron_cluster.connect()) as connection:
        connection.execute("SELECT FROM schedule_challenges('5 minutes')")
        tick(connection)
        assert schedule(connection) == {"ticking": 1, "late": 0, "stopped": 0}
        assert of_all(connection, "tick_interval_seconds") == [300]
        (duration,), (age,) = (of_all(connection, f"tick_{name}_seconds") for name in ("duration", "age"))
        assert 0 < duration < 30
        assert 0 <= age < 30
        connection.execute(
            "UPDATE audius_challenges.last_tick SET scheduled_at = NULL, began_at = now() - INTERVAL '1 hour',"
            " ended_at = now() - INTERVAL '59 minutes'"
        )
        assert schedule(connection) == {"ticking": 0, "late": 1, "stopped": 0}
        assert of_all(connection, "tick_duration_seconds") == [60]
        connection.execute("UPDATE audius_challenges.last_tick SET is_running = TRUE")
        assert of_all(connection, "tick_duration_seconds") == []


def test_fridays_that_were_not_paid(session: Connection) -> None:
    session.execute("SELECT build.qualify_tt(101), build.qualify_tut(102), build.qualify_tp(103)")
    tick(session)
    for table in ("trending_results", "user_challenges"):  # of today, if it is Friday
        session.execute(f"DELETE FROM {table}")
    assert of_challenges(session, "unpaid_fridays") == dict.fromkeys(TRENDING, 0)
    due = "SELECT floor(extract(epoch FROM now() - INTERVAL '6 hours' - '2026-01-02'::timestamptz) / 604800)::integer"
    session.execute("SET timezone = 'UTC'")
    session.execute(
        "INSERT INTO trending_results (user_id, id, rank, type, version, week)"
        " VALUES (101, '1', 1, 'TRACKS', 'pnagD', '2026-01-02')"
    )
    fridays = value(session, due)
    assert of_challenges(session, "unpaid_fridays") == {"tt": fridays, "tut": 0, "tp": 0}
    session.execute(
        "INSERT INTO audius_challenges.unpaid_friday (challenge_id, week, reason) VALUES ('tt', '2026-01-09', 'test')"
    )
    assert of_challenges(session, "unpaid_fridays")["tt"] == fridays - 1
    session.execute("UPDATE challenges SET active = FALSE WHERE id = 'tt'")
    tick(session)
    assert "tt" not in of_challenges(session, "unpaid_fridays")


def test_whoever_may_read_the_status_sees_it_all_without_writing(session: Connection) -> None:
    session.execute("CREATE ROLE reader")
    try:
        session.execute("SELECT audius_challenges.grant_status('reader')")
        tick(session)
        expected = column(session, "SELECT name FROM audius_challenges.metrics()")
        session.execute("BEGIN READ ONLY")
        session.execute("SET LOCAL ROLE reader")
        assert column(session, "SELECT name FROM audius_challenges.metrics()") == expected
        session.execute("ROLLBACK")
        session.execute("REVOKE SELECT ON trending_results FROM reader")
        session.execute("SET ROLE reader")
        found = column(session, "SELECT name FROM audius_challenges.metrics()")
        assert set(expected) - set(found) == {"audius_challenges_unpaid_fridays"}
    finally:
        session.execute("RESET ROLE")
        session.execute("DROP OWNED BY reader; DROP ROLE reader")


@pytest.mark.parametrize("table", ["users", "comments", "trending_results", "user_challenges", "challenges"])
def test_a_table_that_is_missing_hides_no_other_number(session: Connection, table: str) -> None:
    tick(session)
    session.execute(f"ALTER TABLE {table} RENAME TO moved")
    assert of_challenges(session, "completions_total")["v"] == 10
    assert of_challenges(session, "failing").keys() == set(RUN_ORDER)
