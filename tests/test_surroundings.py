"""No setting that a database, a role or a session can have changes what is paid (rule 13)."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import BUILDERS, CREATE_EXTENSION, SCHEMA, Discovery
from tests.sessions import RUN_ORDER, Connection, rows, tick

FRIDAY = "2025-03-07 10:00+00"

# What is set for a text; of other types it is every value of an enum, both of a boolean, the least and the greatest
# number.
TEXTS = {
    "application_name": ["pg_restore"],
    "client_encoding": ["LATIN1", "EUC_JP"],
    "DateStyle": ["SQL, DMY", "German", "Postgres, MDY"],
    "lc_messages": ["C"],
    "lc_monetary": ["C"],
    "lc_numeric": ["C"],
    "lc_time": ["C"],
    "search_path": ["", "build, pg_catalog", "nowhere"],
    "session_authorization": [],
    "TimeZone": ["Asia/Kolkata", "America/Los_Angeles", "posixrules"],
    "timezone_abbreviations": ["India"],
}

# Why a setting is not tried: it stops statements, which is what it is for; it makes the server tell or keep something
# else than rows; it is a developer's, and damages or stops by intent; or it is the application's own.
LEFT_OUT = {
    "statement_timeout": "stops",
    "transaction_timeout": "stops",
    "lock_timeout": "stops; a run has its own",
    "idle_in_transaction_session_timeout": "stops",
    "idle_session_timeout": "stops",
    "default_transaction_read_only": "a run says that it cannot write",
    "transaction_read_only": "a run says that it cannot write",
    "transaction_isolation": "a run says that it takes READ COMMITTED; ticks make it",
    "default_transaction_isolation": "a run says that it takes READ COMMITTED; ticks make it",
    "temp_file_limit": "stops",
    "max_stack_depth": "beyond what the system allows it is an error",
    "temp_buffers": "the greatest is more than there is",
    "hash_mem_multiplier": "with the greatest work_mem, more than there is",
    "session_replication_role": "the application's triggers do not fire then",
    "zero_damaged_pages": "damages",
    "ignore_checksum_failure": "damages",
    "ignore_system_indexes": "a developer's",
    "allow_system_table_mods": "a developer's",
    "allow_in_place_tablespaces": "a developer's",
    "default_table_access_method": "needs another one",
    "default_tablespace": "needs another one",
    "temp_tablespaces": "needs another one",
    "seed": "of random()",
    "post_auth_delay": "waits",
    "commit_delay": "waits",
    "vacuum_cost_delay": "waits",
    "jit_provider": "needs another one",
}
UNTRIED = ("log_", "debug_", "trace_", "track_", "backtrace", "client_min_messages", "exit_on_error", "cron.")

SETTINGS = """
    SELECT name, vartype, enumvals, min_val, max_val, setting
    FROM pg_settings
    WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend')
        AND name !~ '^(lo_compat|wal_consistency|local_preload|session_preload|dynamic_library)'
    ORDER BY name
"""
PAID = """
    SELECT challenge_id::text, user_id, specifier::text, is_complete, current_step_count, completed_blocknumber, amount,
        CASE WHEN challenge_id NOT IN (SELECT id FROM challenges WHERE type = 'trending') THEN created_at END,
        CASE WHEN challenge_id NOT IN (SELECT id FROM challenges WHERE type = 'trending') THEN completed_at END
    FROM user_challenges
    ORDER BY challenge_id COLLATE "C", specifier COLLATE "C"
"""


def odd_values(name: str, kind: str, values: list[str] | None, least: str, greatest: str) -> list[str]:
    """What to set."""
    if name in TEXTS:
        return TEXTS[name]
    if kind == "bool":
        return ["on", "off"]
    if kind == "enum":
        return values or []
    if kind in ("integer", "real"):
        return [least, greatest]
    return []


@pytest.fixture(scope="module")
def peopled(cluster: Cluster, full_template: str) -> Iterator[Discovery]:
    """A database in which somebody qualifies for every challenge, and somebody almost does."""
    cluster.create_database("surroundings", full_template)
    database = Discovery(cluster, "surroundings")
    people(database)
    yield database
    cluster.drop_database("surroundings")


def people(database: Discovery) -> None:
    """Fill it so."""
    with closing(database.connect()) as session:
        session.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        for number, challenge in enumerate(RUN_ORDER):
            session.execute("SELECT build.qualify(%s, %s)", [challenge, 100 + number])
            session.execute("SELECT build.almost(%s, %s)", [challenge, 200 + number])
        # Of two current rows in one block the greater txhash decides, bytewise: in a dictionary, B comes after a.
        session.execute(
            """
            SELECT build.person(300, is_deactivated => TRUE, txhash => 'B'), build.person(300, txhash => 'a');
            SELECT build.playlist(300, 300);
            SELECT build.person(301), build.person(302);
            SELECT build.track(301, 301, txhash => 'B'), build.track(301, 302, txhash => 'a');
            SELECT build.track_score(301, 1e9);
            SELECT build.playlist(303, 301, txhash => 'B'), build.playlist(303, 302, txhash => 'a');
            SELECT build.playlist_score(303, 1e9);
            """
        )


def paid(session: Connection) -> tuple[list[Any], list[Any]]:
    """What a run reports, and what is paid then; nothing of it stays. The settings are those of the session."""
    with session.transaction(force_rollback=True):
        report = rows(
            session,
            "SELECT challenge_id, status, error, rows_inserted, rows_completed"
            f" FROM public.reconcile_challenges(as_of => '{FRIDAY}')",
        )
        session.execute("RESET ALL")
        return report, rows(session, PAID)


def test_no_setting_changes_what_is_paid(peopled: Discovery) -> None:
    with closing(peopled.connect()) as session:
        settings = rows(session, SETTINGS)
        expected = paid(session)
    assert {status for _, status, *_ in expected[0]} == {"ok"}
    assert len(expected[1]) > 2 * len(RUN_ORDER)
    differing, tried = {}, 0
    for name, kind, values, least, greatest, _ in settings:
        if name in LEFT_OUT or name.startswith(UNTRIED):
            continue
        for value in odd_values(name, kind, values, least, greatest):
            with closing(peopled.connect()) as session:
                try:
                    session.execute("SELECT set_config(%s, %s, false)", [name, value])
                except psycopg.Error:
                    continue  # not possible on this server
                tried += 1
                try:
                    found = paid(session)
                except psycopg.Error as error:
                    differing[name, value] = str(error)
                    continue
                if found != expected:
                    differing[name, value] = str([row for row in found[0] if row not in expected[0]][:2] or "rows")
    assert differing == {}
    assert tried > 200


@pytest.mark.parametrize(
    "options",
    ["LOCALE_PROVIDER icu ICU_LOCALE 'en'", "ENCODING 'LATIN1' LOCALE 'C'", "ENCODING 'SQL_ASCII' LOCALE 'C'"],
)
def test_no_locale_or_encoding_of_a_database_changes_what_is_paid(peopled: Discovery, options: str) -> None:
    cluster = peopled.cluster
    with closing(cluster.connect("postgres")) as session:
        session.execute(f"CREATE DATABASE elsewhere TEMPLATE template0 {options}")
    try:
        elsewhere = Discovery(cluster, "elsewhere")
        elsewhere.psql(SCHEMA, BUILDERS, CREATE_EXTENSION)
        people(elsewhere)
        encoded = psycopg.connect(elsewhere.dsn(), autocommit=True, client_encoding="UTF8")
        with closing(peopled.connect()) as here, closing(encoded) as there:
            expected = paid(here)
            assert paid(there) == expected
    finally:
        cluster.drop_database("elsewhere")
    earners = {(challenge, specifier): user for challenge, user, specifier, *_ in expected[1]}
    assert [earners["fp", "12c"], earners["tt", "2025-03-07:1"], earners["tp", "2025-03-07:1"]] == [300, 302, 302]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable", "read uncommitted"])
def test_a_tick_makes_its_own_isolation(discovery: Discovery, isolation: str) -> None:
    discovery.psql("SELECT build.person(255, is_verified => TRUE)")
    with closing(discovery.connect()) as session:
        session.execute("SELECT set_config('default_transaction_isolation', %s, false)", [isolation])
        assert tick(session) == []
        assert rows(session, "SELECT specifier FROM user_challenges WHERE challenge_id = 'v'") == [("ff",)]
        assert rows(session, "SHOW default_transaction_isolation") == [(isolation,)]


SOURCES = ["users", "follows", "tracks", "playlists", "plays", "aggregate_monthly_plays", "user_challenges"]


@pytest.mark.parametrize("table", SOURCES)
def test_rows_that_a_policy_hides_fail_the_challenge_by_the_tables_name(discovery: Discovery, table: str) -> None:
    """They are never taken for gone: what was counted stays."""
    role = f"hidden_{table}"
    with closing(discovery.connect()) as session:
        session.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        for number, challenge in enumerate(RUN_ORDER):
            session.execute("SELECT build.qualify(%s, %s)", [challenge, 100 + number])
        session.execute(f"CREATE ROLE {role}")
        try:
            session.execute("SELECT audius_challenges.grant_run(%s)", [role])
            session.execute(f"SET ROLE {role}")
            session.execute(f"SELECT * FROM reconcile_challenges(as_of => '{FRIDAY}')")
            before = rows(session, PAID)
            session.execute("RESET ROLE")
            session.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            session.execute(f"SET ROLE {role}")
            again = f"reconcile_challenges(full_scan => TRUE, as_of => '{FRIDAY}')"
            found = rows(session, f"SELECT challenge_id, status, error FROM {again}")
            session.execute("RESET ROLE")
            assert rows(session, PAID) == before
        finally:
            session.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    hidden = f'query would be affected by row-level security policy for table "{table}"'
    failed = [error for _, status, error in found if status == "failed"]
    assert failed
    assert [error for error in failed if hidden not in error or "BYPASSRLS" not in error] == []
