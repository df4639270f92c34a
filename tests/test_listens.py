"""Listens that were passed over never count, whatever happens to their rows later; and none is lost to odd ids."""

from contextlib import closing

from devtools.discovery import Discovery
from tests.sessions import rows

LISTENS_OF_LAST_WEEK = """
    SELECT count(build.play(1, 100, (now() AT TIME ZONE 'UTC') - day * INTERVAL '1 day'))
    FROM generate_series(9, 2, -1) AS day
"""
CROWD = """
    SELECT count(build.play(NULL, 100, (now() AT TIME ZONE 'UTC') - INTERVAL '4 hours'))
    FROM generate_series(1, 1000)
"""


def test_listens_of_a_deactivated_user_count_after_a_restore_too_once_he_is_back(discovery: Discovery) -> None:
    """Six listens counted; the seventh while deactivated; then the database is restored elsewhere."""
    listen = "SELECT build.play(2, 100, (now() AT TIME ZONE 'UTC') - %s * INTERVAL '1 hour')"
    paid = "SELECT amount FROM user_challenges WHERE challenge_id = 'e' AND is_complete"
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        session.execute("SELECT build.person(1), build.person(2), build.track(100, 1)")
        for day in range(6):
            session.execute(listen, [190 - 24 * day])
        session.execute("CALL audius_challenges.tick()")
        session.execute("UPDATE users SET is_deactivated = TRUE WHERE user_id = 2")
        session.execute(listen, [40])
        session.execute("CALL audius_challenges.tick()")
        session.execute("UPDATE audius_challenges.installation SET cluster = 1")
        session.execute("CALL audius_challenges.tick()")
        assert rows(session, paid) == []
        session.execute("UPDATE users SET is_deactivated = FALSE WHERE user_id = 2")
        for _ in range(2):
            session.execute("CALL audius_challenges.tick()")
            assert rows(session, paid) == [(7,)]


def test_many_plays_with_high_ids_blind_nothing(discovery: Discovery) -> None:
    """As `test_an_absurd_block_of_many_rows_blinds_nothing`, for plays; the sweep is off."""
    listen = "SELECT build.play(%s, 100, (now() AT TIME ZONE 'UTC') - INTERVAL '1 hour')"
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        session.execute("SELECT count(build.person(person)) FROM generate_series(1, 6) AS person")
        session.execute("SET audius_challenges.sweep_users = 0")
        session.execute(CROWD)
        session.execute("CALL audius_challenges.tick()")
        session.execute(
            "SELECT count(build.play(NULL, 100, '2026-01-01', 2000000000 + number))"
            " FROM generate_series(1, 700) AS number"
        )
        for person in range(1, 7):
            session.execute(listen, [person])
            session.execute("CALL audius_challenges.tick()")
        session.execute("SELECT * FROM reconcile_challenges(full_scan => TRUE)")
        assert rows(session, "SELECT user_id FROM challenge_listen_streak") == [(person,) for person in range(1, 7)]


def test_plays_from_before_start_from_now_never_count_when_they_are_updated(discovery: Discovery) -> None:
    """No transaction is open; a backfill touches old plays between start_from_now() and the first tick."""
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        session.execute("SELECT build.person(1), build.track(100, 1)")
        session.execute(LISTENS_OF_LAST_WEEK)
        session.execute(CROWD)
        session.execute("SELECT audius_challenges.start_from_now()")
        session.execute("UPDATE plays SET updated_at = updated_at + INTERVAL '1 second'")
        session.execute("CALL audius_challenges.tick()")
        assert rows(session, "SELECT specifier, amount FROM user_challenges WHERE challenge_id = 'e'") == []
