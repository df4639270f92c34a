"""First builds that are interrupted, or out of step with each other, write nothing twice."""

from contextlib import closing

import pytest

from devtools.discovery import Discovery
from tests.sessions import rows, value

NEEDLESS = """
    SELECT challenge_id, specifier
    FROM user_challenges_log
    WHERE operation = 'UPDATE'
        AND old = new
    ORDER BY 1, 2
"""


def test_a_first_build_rewrites_no_row_that_a_cascade_wrote_before(discovery: Discovery) -> None:
    """p1 was there first; p2's first build frees everybody at once and meets them again slice by slice."""
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        session.execute("UPDATE challenges SET active = false WHERE id IN ('p2', 'p3')")
        session.execute("SELECT count(build.person(p, is_verified => TRUE)) FROM generate_series(1, 6) AS p")
        session.execute("SELECT count(build.track(100 + p, p)) FROM generate_series(1, 6) AS p")
        session.execute("SELECT count(build.monthly(100 + p, '2026-01-01', 300)) FROM generate_series(1, 6) AS p")
        session.execute("CALL audius_challenges.tick()")
        session.execute("UPDATE challenges SET active = true WHERE id = 'p2'")
        session.execute("SET audius_challenges.slice_users = 2")
        for _ in range(3):
            session.execute("SET audius_challenges.time_budget = '0ms'")
            session.execute("CALL audius_challenges.tick()")
        assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'p2'") == 6
        assert rows(session, NEEDLESS) == []


def test_first_builds_out_of_step_rewrite_nothing(discovery: Discovery) -> None:
    """On a new database: p1 is one slice ahead of p2 when the time of a tick is over."""
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        session.execute("SELECT count(build.person(p, is_verified => TRUE)) FROM generate_series(1, 6) AS p")
        session.execute("SELECT count(build.track(100 + p, p)) FROM generate_series(1, 6) AS p")
        session.execute("SELECT count(build.monthly(100 + p, '2026-01-01', 300)) FROM generate_series(1, 6) AS p")
        session.execute("SET audius_challenges.slice_users = 2")
        session.execute("SET audius_challenges.time_budget = '0ms'")
        session.execute("CALL audius_challenges.tick()")
        # The tick's time may be over after p1 and before p2.
        session.execute("SELECT * FROM reconcile_challenges('{p1}')")
        session.execute("CALL audius_challenges.tick()")
        session.execute("CALL audius_challenges.tick()")
        session.execute("CALL audius_challenges.tick()")
        assert rows(session, NEEDLESS) == []


def test_a_first_build_begun_again_after_a_restore_rewrites_nothing_and_follows_down(discovery: Discovery) -> None:
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        session.execute("SELECT count(build.person(p)) FROM generate_series(1, 6) AS p")
        session.execute("SELECT count(build.track(100 + p, p)) FROM generate_series(1, 6) AS p")
        session.execute("SET audius_challenges.slice_users = 2")
        session.execute("SET audius_challenges.sweep_users = 0")
        session.execute("SET audius_challenges.time_budget = '0ms'")
        session.execute("CALL audius_challenges.tick()")
        # Restored elsewhere, in the middle of the first build.
        session.execute("UPDATE audius_challenges.installation SET cluster = 1")
        session.execute("UPDATE tracks SET is_delete = TRUE WHERE owner_id = 1")
        for _ in range(6):
            session.execute("CALL audius_challenges.tick()")
        phases = """
            SELECT DISTINCT state.phase
            FROM audius_challenges.processor_state AS state
            JOIN challenges ON challenges.id = state.challenge_id AND challenges.active
        """
        assert rows(session, phases) == [("watching",)]
        found = rows(
            session, "SELECT user_id, current_step_count FROM user_challenges WHERE challenge_id = 'u' ORDER BY 1"
        )
        assert found == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]
        assert rows(session, NEEDLESS) == []


# Whatever a first build is started by.
FORMS = (
    "CALL audius_challenges.tick()",
    "SELECT count(*) FROM reconcile_challenges()",
    "SELECT count(*) FROM reconcile_challenges(full_scan => true)",
    "SELECT count(*) FROM reconcile_challenges(dry_run => true)",
)
FILLED = "user_challenges, challenge_profile_completion, challenge_listen_streak, trending_results, notification"
READ_WHOLE = """
    SELECT relname, seq_tup_read
    FROM pg_stat_user_tables
    WHERE relname = ANY(string_to_array(%s, ', '))
        AND seq_tup_read > 0
"""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed while empty"])
def test_a_first_build_reads_no_table_whole_that_it_fills(discovery: Discovery, form: str, analyzed: bool) -> None:
    """Nor do the application's triggers: in a table that grows meanwhile, each row would cost more than the last."""
    people = 300
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        session.execute(
            "SELECT count(build.person(p, name => 'n', is_verified => TRUE)) FROM generate_series(1, %s) AS p",
            (people,),
        )
        played = "SELECT count(build.play(p, p, '2026-11-01 12:00')) FROM generate_series(1, %s) AS p"
        session.execute(played, (people,))
        session.execute(f"ANALYZE users, plays{', ' + FILLED if analyzed else ''}")
        session.execute("SELECT pg_stat_reset()")

        session.execute(form)

        session.execute("SELECT pg_stat_force_next_flush()")
        completed = value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'v' AND is_complete")
        assert completed == (0 if "dry_run" in form else people)
        session.execute("SELECT pg_stat_clear_snapshot()")
        # A few rows that a plan for everybody reads once are no row for each.
        assert {name: read for name, read in rows(session, READ_WHOLE, FILLED) if read > 10 * people} == {}
        assert value(session, "SELECT current_setting('enable_seqscan')") == "on"
