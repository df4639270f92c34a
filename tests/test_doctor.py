"""audius_challenges.doctor(): each trouble is made for real, found, and gone once its statement has run."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from audius_challenges.sources import COMMENTS_BY_USER, HELPFUL_INDEXES, NEEDED_INDEXES, TABLES
from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from tests.sessions import Connection, NewCluster, knows_seconds, replace_package, rows, tick, until, value

LAUNCHER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher' AND datname IS NOT NULL"
# Ticks come by hand, so that no other is in the way.
EVERY_HOUR = "SELECT * FROM schedule_challenges('1 hour')"
BY_TICKS = "operation/checks_of_ticks"


class Finding(NamedTuple):
    """A row of doctor()."""

    severity: str
    what: str
    found: str
    expected: str
    statement: str


@pytest.fixture(scope="module")
def database(root: Path | None) -> Iterator[Discovery]:
    """A healthy database with a schedule, on a server of its own, with the indexes of production and no others.

    Each test leaves it as it was.
    """
    settings = {"max_prepared_transactions": "5", "wal_level": "logical"}
    with Cluster(root=root, cron_database="discovery", settings=settings) as cluster:
        require_extension(cluster)
        database = create_discovery(cluster, "discovery")
        database.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION)
        with closing(database.connect()) as connection:
            until(lambda: rows(connection, LAUNCHER), "the launcher")
            connection.execute(EVERY_HOUR)
            tick(connection)
        yield database


@pytest.fixture
def connection(database: Discovery) -> Iterator[Connection]:
    """A session of a superuser in it; after the test, as before it, the doctor finds nothing."""
    with closing(database.connect()) as connection:
        yield connection
        connection.execute("RESET ALL")
        others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        until(lambda: not rows(connection, others), "the end of the other sessions, which are closed")
        is_well(connection)


def ask(where: Discovery | Connection) -> list[Finding]:
    """The findings, in this session, or in one of their own, in which all settings are those that are kept."""
    if isinstance(where, Discovery):
        with closing(where.connect()) as session:
            return ask(session)
    return [Finding(*row) for row in rows(where, "SELECT * FROM audius_challenges.doctor()")]


def is_well(where: Discovery | Connection) -> None:
    """One line says that nothing is found."""
    (only,) = ask(where)
    assert only.severity == "ok", only
    assert re.fullmatch(r"\d+ checks have found nothing", only.found)
    assert (only.what, only.expected, only.statement) == ("everything", "", "")


def run(database: Discovery, *statements: str) -> None:
    """Runs statements as somebody who has the rights would who pastes them."""
    with closing(database.connect()) as session:
        for statement in statements:
            session.execute(statement)


@dataclass(frozen=True)
class Trouble:
    """What somebody does, and what is said of it.

    by_hand: what a person does where no statement is given; "tick" ticks
    after: what else puts the database back as it was
    remains: what is found by the same name afterwards
    """

    does: Sequence[str]
    severity: str
    what: str
    found: str
    statement: str = ""
    by_hand: Sequence[str] = ()
    after: Sequence[str] = ()
    before: Sequence[str] = ()
    remains: Sequence[str] = ()


COMPLETE = "SELECT build.complete('v', 255, 'ff', 5, blocknumber => {})"
RUNNER = (
    "CREATE ROLE runner LOGIN",
    "SELECT audius_challenges.grant_run('runner')",
    "UPDATE cron.job SET username = 'runner'",
)
NO_RUNNER = (
    "UPDATE cron.job SET username = 'postgres'",
    "DROP OWNED BY runner",
    "DROP ROLE runner",
)
SCHEDULE = "SELECT * FROM public.schedule_challenges();"

TROUBLES = {
    "jobs switched off": Trouble(
        ["UPDATE cron.job SET active = FALSE"],
        "critical",
        "nothing ticks",
        "the jobs are switched off (cron.job.active is false)",
        SCHEDULE,
        after=[EVERY_HOUR],
    ),
    "no jobs": Trouble(
        ["SELECT * FROM unschedule_challenges()"],
        "critical",
        "nothing ticks",
        "no job of pg_cron ticks this database",
        SCHEDULE,
        after=[EVERY_HOUR],
    ),
    "jobs of another database": Trouble(
        ["UPDATE cron.job SET database = 'postgres'"],
        "critical",
        "nothing ticks",
        "the jobs tick another database: postgres",
        SCHEDULE,
        after=[EVERY_HOUR],
    ),
    "no trim": Trouble(
        ["SELECT cron.unschedule('audius_challenges trim')"],
        "notice",
        "nothing trims cron.job_run_details",
        "no active job does",
        "SELECT * FROM public.schedule_challenges('3600 seconds');",
    ),
    "jobs that fail": Trouble(
        [
            (
                "INSERT INTO cron.job_run_details (jobid, runid, command, status, return_message)"
                " SELECT jobid, nextval('cron.runid_seq'), command, 'failed', 'connection failed'"
                " FROM cron.job CROSS JOIN generate_series(1, 3) WHERE jobname = 'audius_challenges tick'"
            )
        ],
        "critical",
        "job .* of pg_cron fails .CALL audius_challenges.tick...",
        "3 times since its last success: connection failed",
        by_hand=["DELETE FROM cron.job_run_details"],
    ),
    "several roles": Trouble(
        [
            *RUNNER[:2],
            (
                "INSERT INTO cron.job (schedule, command, nodename, nodeport, database, username, active, jobname)"
                " SELECT schedule, command, nodename, nodeport, database, 'runner', TRUE, jobname"
                " FROM cron.job WHERE jobname = 'audius_challenges tick'"
            ),
        ],
        "warning",
        "several roles tick",
        "job .* of postgres: CALL audius_challenges.tick..; job .* of runner: CALL audius_challenges.tick..",
        by_hand=["DELETE FROM cron.job WHERE username = 'runner'"],
        after=NO_RUNNER[1:],
    ),
    "helpers of who ticks no more": Trouble(
        [
            *RUNNER[:2],
            (
                "INSERT INTO cron.job (schedule, command, nodename, nodeport, database, username, active, jobname)"
                " SELECT schedule, 'CALL audius_challenges.help()', nodename, nodeport, database, 'runner', TRUE,"
                " 'audius_challenges helper 1' FROM cron.job WHERE jobname = 'audius_challenges tick'"
            ),
        ],
        "warning",
        "a job of helpers that no tick removes",
        "job .* of runner, of whom no job ticks: CALL audius_challenges.help..",
        r"SELECT cron.unschedule\(\d+\);",
        after=NO_RUNNER[1:],
    ),
    "ticks that have stopped": Trouble(
        ["UPDATE audius_challenges.last_tick SET ended_at = now() - INTERVAL '1 day', scheduled_at = NULL"],
        "warning",
        "a tick is overdue",
        "the last tick ended at .*, one is due every 3600 s",
        by_hand=["CALL audius_challenges.tick()"],
    ),
    "switched off": Trouble(
        ["ALTER DATABASE discovery SET audius_challenges.enabled = 'off'"],
        "critical",
        "challenges are switched off",
        "audius_challenges.enabled = 'off' for DATABASE discovery",
        "ALTER DATABASE discovery RESET audius_challenges.enabled;",
    ),
    "a misspelt setting": Trouble(
        ["ALTER DATABASE discovery SET audius_challenges.max_completion = '5'"],
        "warning",
        "a setting is unknown, so it has no effect",
        "audius_challenges.max_completion",
        "ALTER DATABASE discovery RESET audius_challenges.max_completion;",
    ),
    "a setting that does not parse": Trouble(
        ["ALTER ROLE postgres SET audius_challenges.time_budget = 'soon'"],
        "critical",
        "a setting is invalid, so ticks fail",
        "audius_challenges.time_budget = 'soon' for ROLE postgres",
        "ALTER ROLE postgres RESET audius_challenges.time_budget;",
    ),
    "a timeout": Trouble(
        ["ALTER DATABASE discovery SET statement_timeout = '5s'"],
        "warning",
        "statement_timeout may cut off the ticks of role postgres",
        "5 s, set for DATABASE discovery",
        "ALTER ROLE postgres SET statement_timeout = 0;",
        after=["ALTER ROLE postgres RESET statement_timeout", "ALTER DATABASE discovery RESET statement_timeout"],
    ),
    "a timeout of a role in the database": Trouble(
        ["ALTER ROLE postgres IN DATABASE discovery SET statement_timeout = 5000"],
        "warning",
        "statement_timeout may cut off the ticks of role postgres",
        "5 s, set for ROLE postgres IN DATABASE discovery",
        "ALTER ROLE postgres IN DATABASE discovery SET statement_timeout = 0;",
        after=["ALTER ROLE postgres IN DATABASE discovery RESET statement_timeout"],
    ),
    "an amount that is none": Trouble(
        ["UPDATE challenges SET amount = 'five' WHERE id = 'v'"],
        "critical",
        'challenge "v" differs from the catalog',
        'challenge "v" has an invalid amount in the catalog: "five"',
        "UPDATE public.challenges SET amount = '5' WHERE id = 'v';",
    ),
    "another step_count": Trouble(
        ["UPDATE challenges SET step_count = 4 WHERE id = 'u'"],
        "notice",
        'challenge "u" differs from the catalog',
        "step_count: 4 -> 3",
        "UPDATE public.challenges SET step_count = 3 WHERE id = 'u';",
    ),
    "an amount that is none beside a shorter cooldown": Trouble(
        ["UPDATE challenges SET amount = '', cooldown_days = 9 WHERE id = 'u'"],
        "critical",
        'challenge "u" differs from the catalog',
        'challenge "u" has an invalid amount in the catalog: ""',
        "UPDATE public.challenges SET amount = '1' WHERE id = 'u';",
        after=["UPDATE challenges SET cooldown_days = 7 WHERE id = 'u'"],
        remains=["cooldown_days: 9 -> 7"],
    ),
    "a longer cooldown": Trouble(
        ["UPDATE challenges SET cooldown_days = 9 WHERE id = 'u'"],
        "notice",
        'challenge "u" differs from the catalog',
        "cooldown_days: 9 -> 7",
        by_hand=["UPDATE challenges SET cooldown_days = 7 WHERE id = 'u'"],
    ),
    "a cooldown where there should be none": Trouble(
        ["UPDATE challenges SET cooldown_days = 9 WHERE id = 'v'"],
        "notice",
        'challenge "v" differs from the catalog',
        "cooldown_days: 9 -> null",
        by_hand=["UPDATE challenges SET cooldown_days = NULL WHERE id = 'v'"],
    ),
    "a lower amount": Trouble(
        ["UPDATE challenges SET amount = '4' WHERE id = 'v'"],
        "notice",
        'challenge "v" differs from the catalog',
        "amount: 4 -> 5",
        by_hand=["UPDATE challenges SET amount = '5' WHERE id = 'v'"],
    ),
    "a later start": Trouble(
        ["UPDATE challenges SET starting_block = 9 WHERE id = 'v'"],
        "notice",
        'challenge "v" differs from the catalog',
        "starting_block: 9 -> 0",
        by_hand=["UPDATE challenges SET starting_block = 0 WHERE id = 'v'"],
    ),
    "a challenge that is switched off": Trouble(
        ["UPDATE challenges SET active = FALSE WHERE id = 'v'"],
        "notice",
        'challenge "v" differs from the catalog',
        "active: false -> true",
        by_hand=["UPDATE challenges SET active = TRUE WHERE id = 'v'"],
    ),
    "a higher amount and a shorter cooldown": Trouble(
        ["UPDATE challenges SET amount = '2', cooldown_days = 0 WHERE id = 'u'"],
        "notice",
        'challenge "u" differs from the catalog',
        "amount: 2 -> 1, cooldown_days: 0 -> 7",
        "UPDATE public.challenges SET amount = '1', cooldown_days = 7 WHERE id = 'u';",
    ),
    "challenges that wait": Trouble(
        ["UPDATE audius_challenges.processor_state SET is_asked_for = FALSE WHERE challenge_id IN ('fp', 'v')"],
        "notice",
        "challenges wait to be asked for",
        "fp,v",
        "SELECT * FROM audius_challenges.start_from_now('{fp,v}');",
    ),
    "all challenges wait": Trouble(
        ["UPDATE audius_challenges.processor_state SET is_asked_for = FALSE"],
        "notice",
        "challenges wait to be asked for",
        "b,c,.*,v,w",
        r"SELECT \* FROM audius_challenges.start_from_now\('{b,c,.*,v,w}'\);",
    ),
    "a retired challenge": Trouble(
        ["DELETE FROM challenges WHERE id = 'v'"],
        "notice",
        'challenge "v" is not in the catalog',
        "no row",
        "SELECT * FROM public.sync_challenge_catalog('prod', '{v}');",
    ),
    "rows without a block": Trouble(
        ["SELECT build.person(255)", COMPLETE.format("NULL")],
        "warning",
        'rows of challenge "v" are complete without a block number, and never paid',
        "1 row",
        "UPDATE public.user_challenges AS earned SET completed_blocknumber = .*",
        after=["DELETE FROM user_challenges", "DELETE FROM users"],
    ),
    "rows with absurd blocks": Trouble(
        ["SELECT build.person(255)", "SELECT build.block(1000)", COMPLETE.format("400000000")],
        "warning",
        'rows of challenge "v" have absurd block numbers, which carry cursors away',
        "1 row above 101000",
        "UPDATE public.user_challenges AS earned SET completed_blocknumber = .*",
        after=["DELETE FROM user_challenges", "DELETE FROM users", "DELETE FROM blocks"],
    ),
    "scores that are NaN": Trouble(
        [
            (
                "INSERT INTO track_trending_scores (track_id, type, version, time_range, score, created_at)"
                " SELECT id, 'TRACKS', 'pnagD', 'week', CASE id WHEN 1 THEN 'NaN'::float8 ELSE 7 END, now()"
                " FROM generate_series(1, 2) AS id"
            )
        ],
        "warning",
        "track_trending_scores has scores of TRACKS that do not count",
        "NaN or infinite",
        by_hand=["UPDATE track_trending_scores SET score = 1 WHERE score = 'NaN'"],
        after=["DELETE FROM track_trending_scores"],
    ),
    "scores that are all 0": Trouble(
        [
            (
                "INSERT INTO playlist_trending_scores (playlist_id, type, version, time_range, score, created_at)"
                " VALUES (1, 'PLAYLISTS', 'pnagD', 'week', 0, now())"
            )
        ],
        "warning",
        "playlist_trending_scores has no score of PLAYLISTS that counts, so no Friday is paid",
        "all are 0, negative, infinite, NaN, or of the future",
        by_hand=["UPDATE playlist_trending_scores SET score = 1"],
        after=["DELETE FROM playlist_trending_scores"],
    ),
    "a Friday that was not paid": Trouble(
        [
            (
                "INSERT INTO trending_results (user_id, id, rank, type, version, week)"
                " SELECT 1, '1', 1, 'TRACKS', 'pnagD', week::date"
                " FROM date_trunc('week', now() AT TIME ZONE 'UTC') AS monday"
                " CROSS JOIN generate_series(monday - INTERVAL '17 days', monday + INTERVAL '4 days', '7 days') AS week"
                " WHERE week <> monday - INTERVAL '10 days'"
            )
        ],
        "warning",
        'Fridays of challenge "tt" are not paid, and will not be without you',
        r"1 in all, the latest \d{4}-\d\d-\d\d",
        by_hand=[
            (
                "INSERT INTO audius_challenges.unpaid_friday (challenge_id, week, reason)"
                " SELECT 'tt', (date_trunc('week', now() AT TIME ZONE 'UTC') - INTERVAL '10 days')::date, 'a test'"
            )
        ],
        after=["DELETE FROM audius_challenges.unpaid_friday", "DELETE FROM trending_results"],
    ),
    "a view in place of a table": Trouble(
        [
            "ALTER TABLE sol_purchases RENAME TO purchases",
            "CREATE VIEW sol_purchases AS SELECT * FROM purchases",
        ],
        "critical",
        "the tables are not as challenges need them: b, s",
        '"public.sol_purchases" is a view, not a table',
        by_hand=["DROP VIEW sol_purchases", "ALTER TABLE purchases RENAME TO sol_purchases"],
    ),
    "a table that is gone": Trouble(
        ["ALTER TABLE saves RENAME TO kept"],
        "critical",
        "the tables are not as challenges need them: p, t",
        'table "public.saves" does not exist',
        by_hand=["ALTER TABLE kept RENAME TO saves"],
    ),
    "a column of another type": Trouble(
        ["ALTER TABLE aggregate_monthly_plays ALTER count TYPE smallint"],
        "critical",
        "the tables are not as challenges need them: p1, p2, p3",
        'column "count" of table "public.aggregate_monthly_plays" is of type smallint',
        by_hand=["ALTER TABLE aggregate_monthly_plays ALTER count TYPE integer"],
    ),
    "a trigger's table without an index": Trouble(
        [
            (
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM 1 FROM notification WHERE user_ids @> ARRAY[new.user_id] AND type = 'x'; RETURN NULL; END $$"
            ),
            "CREATE TRIGGER tell AFTER INSERT ON user_challenges FOR EACH ROW EXECUTE FUNCTION tell()",
        ],
        "notice",
        "trigger tell searches notification for each completed reward without an index",
        r"0 rows \(.*\), by user_ids",
        "CREATE INDEX CONCURRENTLY ON public.notification USING gin (user_ids);",
        after=["DROP FUNCTION tell() CASCADE", "DROP INDEX notification_user_ids_idx"],
    ),
    "a trigger's search that cannot be told": Trouble(
        [
            (
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM FROM notification WHERE new.user_id = ANY(user_ids) AND type = 'c'; RETURN NULL; END $$"
            ),
            "CREATE TRIGGER tell AFTER INSERT ON user_challenges FOR EACH ROW EXECUTE FUNCTION tell()",
        ],
        "notice",
        "trigger tell searches notification for each completed reward without an index",
        r"\d+ rows \(.*\)",
        by_hand=["DROP FUNCTION tell() CASCADE"],
    ),
    "a trigger's search by another name for a column of the row": Trouble(
        [
            (
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM FROM notification WHERE NEW.specifier = notification.specifier; RETURN NULL; END $$"
            ),
            "CREATE TRIGGER tell AFTER INSERT ON user_challenges FOR EACH ROW EXECUTE FUNCTION tell()",
        ],
        "notice",
        "trigger tell searches notification for each completed reward without an index",
        r"\d+ rows \(.*\)",
        by_hand=["DROP FUNCTION tell() CASCADE"],
    ),
    "a table that was never analyzed": Trouble(
        [
            "ALTER TABLE aggregate_user SET (autovacuum_enabled = off)",
            "INSERT INTO aggregate_user (user_id) SELECT generate_series(1, 220000)",
        ],
        "warning",
        "aggregate_user was never analyzed, so runs may be planned badly",
        ".* MB, and no statistics",
        "ANALYZE public.aggregate_user;",
        after=["TRUNCATE aggregate_user", "ALTER TABLE aggregate_user RESET (autovacuum_enabled)"],
    ),
    "row-level security": Trouble(
        ["ALTER TABLE tracks ENABLE ROW LEVEL SECURITY"],
        "critical",
        "row-level security hides rows from role runner",
        "policies on tracks",
        "ALTER ROLE runner BYPASSRLS;",
        before=RUNNER,
        after=["ALTER TABLE tracks DISABLE ROW LEVEL SECURITY", *NO_RUNNER],
    ),
    "a grant that was revoked": Trouble(
        ["REVOKE SELECT ON tracks FROM runner", "REVOKE DELETE ON audius_challenges.look FROM runner"],
        "critical",
        "role runner lacks privileges",
        "DELETE ON audius_challenges.look, SELECT ON public.tracks",
        "SELECT audius_challenges.grant_run('runner');",
        before=RUNNER,
        after=NO_RUNNER,
    ),
    "a grant that a trigger needs": Trouble(
        ["REVOKE INSERT ON user_challenges_log FROM public"],
        "critical",
        "role runner lacks privileges for trigger log_user_challenge on user_challenges",
        r"its function public.log_user_challenge\(\) seems to need INSERT ON TABLE public.user_challenges_log",
        "GRANT INSERT ON TABLE public.user_challenges_log TO runner;",
        before=RUNNER,
        after=["GRANT INSERT ON user_challenges_log TO public", *NO_RUNNER],
    ),
    "a slot that nobody reads": Trouble(
        ["SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')"],
        "warning",
        "a replication slot that nobody reads holds VACUUM back",
        "logical slot forgotten, behind by .* of WAL",
        by_hand=["SELECT pg_drop_replication_slot('forgotten')"],
    ),
    "a filter by what is in no key": Trouble(
        ["CREATE PUBLICATION mine FOR TABLE tracks WHERE (owner_id % 2 = 0)"],
        "critical",
        "UPDATE and DELETE of tracks fail",
        'publication "mine" publishes it, and it is filtered by columns that are not in its replica identity ([^)]+)',
        "ALTER PUBLICATION mine DROP TABLE public.tracks;",
        after=["DROP PUBLICATION mine"],
    ),
    "a list of columns without the key": Trouble(
        ["CREATE PUBLICATION \"No Key\" FOR TABLE users (bio) WITH (publish = 'insert, delete')"],
        "critical",
        "DELETE of users fails",
        'publication "No Key" publishes it, and its list of columns lacks some of its replica identity ([^)]+)',
        'ALTER PUBLICATION "No Key" DROP TABLE public.users;',
        after=['DROP PUBLICATION "No Key"'],
    ),
    "a published table without a replica identity": Trouble(
        ["ALTER TABLE plays REPLICA IDENTITY NOTHING", "CREATE PUBLICATION mine FOR TABLE plays"],
        "critical",
        "UPDATE and DELETE of plays fail",
        'publication "mine" publishes it, and it has no replica identity',
        "ALTER TABLE public.plays REPLICA IDENTITY FULL;",
        after=["DROP PUBLICATION mine", "ALTER TABLE plays REPLICA IDENTITY DEFAULT"],
    ),
    "the slot of a share that nobody reads": Trouble(
        ["SELECT pg_create_logical_replication_slot('audius_challenges_share_0_of_2', 'pgoutput')"],
        "warning",
        "nobody reads the slot of a share",
        "slot audius_challenges_share_0_of_2 holds .* of WAL",
        by_hand=["SELECT pg_drop_replication_slot('audius_challenges_share_0_of_2')"],
    ),
    "a copy that does not go on": Trouble(
        ["SELECT pg_create_logical_replication_slot('pg_16400_sync_16384_7123456789012345678', 'pgoutput')"],
        "warning",
        "the copy of a table for a subscriber does not go on",
        "slot pg_16400_sync_16384_7123456789012345678 holds .* of WAL",
        by_hand=["SELECT pg_drop_replication_slot('pg_16400_sync_16384_7123456789012345678')"],
    ),
    "a publication": Trouble(
        ["CREATE PUBLICATION everything FOR TABLE user_challenges"],
        "notice",
        "logical replication touches what runs write",
        'publication "everything" publishes user_challenges, which runs write',
        by_hand=["DROP PUBLICATION everything"],
    ),
    "a subscription": Trouble(
        [
            "CREATE SUBSCRIPTION copies CONNECTION 'dbname=nowhere' PUBLICATION none WITH (connect = false)",
            (
                "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
                " SELECT oid, 'user_challenges'::regclass, 'i' FROM pg_subscription"
            ),
        ],
        "critical",
        "logical replication touches what runs write",
        'subscription "copies" writes user_challenges, which runs write, too',
        by_hand=["ALTER SUBSCRIPTION copies SET (slot_name = NONE)", "DROP SUBSCRIPTION copies"],
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_is_found_and_gone_once_its_statement_has_run(
    database: Discovery, connection: Connection, name: str
) -> None:
    trouble = TROUBLES[name]
    asked: Discovery | Connection = database if any(" SET " in each for each in trouble.does) else connection
    run(database, *trouble.before, *trouble.does)

    found = [each for each in ask(asked) if re.fullmatch(trouble.what, each.what)]

    assert len(found) == 1, ask(asked)
    (finding,) = found
    assert finding.severity == trouble.severity
    assert finding.found == trouble.found or re.match(trouble.found, finding.found), finding
    assert finding.statement == trouble.statement or re.fullmatch(trouble.statement, finding.statement), finding
    # Where no statement is given, it says in words what to do.
    assert finding.expected
    assert bool(finding.statement) is not bool(trouble.by_hand)
    run(database, *([finding.statement] if finding.statement else trouble.by_hand))
    assert [each.found for each in ask(asked) if re.fullmatch(trouble.what, each.what)] == list(trouble.remains)
    run(database, *trouble.after)


def refused(database: Discovery, table: str, writes: str) -> bool:
    """Whether PostgreSQL refuses to write a row of a table because of how it is published."""
    with closing(database.connect()) as session:
        try:
            session.execute(writes.format(table))
        except psycopg.errors.InvalidColumnReference:  # of a filter or a list
            return True
        except psycopg.errors.ObjectNotInPrerequisiteState:  # of a table without an identity
            return True
        return False


# Of no row, which PostgreSQL does not know beforehand.
UPDATE, DELETE = "UPDATE {} SET k = k WHERE k < -7", "DELETE FROM {} WHERE k < -7"
PUBLISHED = {
    "whole": "CREATE PUBLICATION mine FOR TABLE {}",
    "by the key": "CREATE PUBLICATION mine FOR TABLE {} WHERE (k % 2 = 0)",
    "by another column": "CREATE PUBLICATION mine FOR TABLE {} WHERE (k % 2 = 0 AND v > 1)",
    "inserts by another column": "CREATE PUBLICATION mine FOR TABLE {} WHERE (v > 1) WITH (publish = 'insert')",
    "updates by another column": "CREATE PUBLICATION mine FOR TABLE {} WHERE (v > 1) WITH (publish = 'insert, update')",
    "as the whole, by another column": (
        "CREATE PUBLICATION mine FOR TABLE {} WHERE (v > 1) WITH (publish_via_partition_root)"
    ),
    "as the whole, by the key": "CREATE PUBLICATION mine FOR TABLE {} WHERE (k > 1) WITH (publish_via_partition_root)",
    "without the key": "CREATE PUBLICATION mine FOR TABLE {} (v)",
    "with the key": "CREATE PUBLICATION mine FOR TABLE {} (k)",
    "with the schema": "CREATE PUBLICATION mine FOR TABLES IN SCHEMA public",
    "with everything": "CREATE PUBLICATION mine FOR ALL TABLES",
}
TABLES_AS_THEY_MAY_BE = {
    "with a key": "CREATE TABLE remixes (k integer PRIMARY KEY, v integer)",
    "without a key": "CREATE TABLE remixes (k integer, v integer)",
    "whole": "CREATE TABLE remixes (k integer PRIMARY KEY, v integer); ALTER TABLE remixes REPLICA IDENTITY FULL",
    "by another index": (
        "CREATE TABLE remixes (k integer PRIMARY KEY, v integer NOT NULL); CREATE UNIQUE INDEX other ON remixes (v);"
        " ALTER TABLE remixes REPLICA IDENTITY USING INDEX other"
    ),
    "with a part": (
        "CREATE TABLE remixes (k integer PRIMARY KEY, v integer) PARTITION BY RANGE (k);"
        " CREATE TABLE part (v integer, gone text, k integer NOT NULL); ALTER TABLE part DROP gone;"
        " ALTER TABLE remixes ATTACH PARTITION part DEFAULT"
    ),
    "not logged": "CREATE UNLOGGED TABLE remixes (k integer PRIMARY KEY, v integer)",
}


@pytest.mark.parametrize("kind", TABLES_AS_THEY_MAY_BE)
def test_writers_are_told_of_where_postgresql_refuses_them_and_nowhere_else(
    database: Discovery, connection: Connection, kind: str
) -> None:
    run(database, "ALTER TABLE remixes RENAME TO away")
    connection.execute(TABLES_AS_THEY_MAY_BE[kind])
    seen = set()
    for name, publication in PUBLISHED.items():
        try:
            connection.execute(publication.format("remixes"))
        except psycopg.Error:  # which PostgreSQL refuses itself
            assert kind in ("not logged", "with a part"), name
            continue
        expected = {
            verb for verb, writes in (("UPDATE", UPDATE), ("DELETE", DELETE)) if refused(database, "remixes", writes)
        }
        found = [each for each in ask(connection) if re.match(r"(UPDATE|DELETE).* of remixes fail", each.what)]
        told = {verb for each in found for verb in ("UPDATE", "DELETE") if verb in each.what}
        assert told == expected, (name, found)
        seen.add(bool(expected))
        for each in found:
            connection.execute(each.statement)
        assert not refused(database, "remixes", UPDATE), name
        assert not refused(database, "remixes", DELETE), name
        connection.execute("DROP PUBLICATION mine")
        if found and "REPLICA IDENTITY" in found[0].statement:
            connection.execute("DROP TABLE remixes")
            connection.execute(TABLES_AS_THEY_MAY_BE[kind])
    assert seen == ({False} if kind == "not logged" else {False, True})
    run(database, "DROP TABLE remixes", "ALTER TABLE away RENAME TO remixes")


def limit_wal(database: Discovery, connection: Connection, limit: str | None) -> None:
    """Sets max_slot_wal_keep_size, or resets it, and waits until this session has it."""
    name = "max_slot_wal_keep_size"
    run(
        database,
        f"ALTER SYSTEM SET {name} = '{limit}'" if limit else f"ALTER SYSTEM RESET {name}",
        "SELECT pg_reload_conf()",
    )
    until(lambda: value(connection, f"SELECT current_setting('{name}')") == (limit or "-1"), "the setting")


def test_slots_of_shares_without_a_limit_are_told_of(database: Discovery, connection: Connection) -> None:
    what = "a share that is down fills the disk with WAL"
    run(database, "SELECT pg_create_logical_replication_slot('audius_challenges_return_0_of_2', 'pgoutput')")
    ((severity, _, found, expected, statement),) = [each for each in ask(connection) if each.what == what]
    assert (severity, found, statement) == ("warning", "max_slot_wal_keep_size is -1, without limit", "")
    assert "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; and then SELECT pg_reload_conf();" in expected
    limit_wal(database, connection, "50GB")
    assert [each for each in ask(connection) if each.what == what] == []
    run(database, "SELECT pg_drop_replication_slot('audius_challenges_return_0_of_2')")
    limit_wal(database, connection, None)


def test_the_slot_of_a_share_that_has_lost_wal_goes(database: Discovery, connection: Connection) -> None:
    run(
        database,
        "SELECT pg_create_logical_replication_slot('audius_challenges_share_1_of_2', 'pgoutput')",
    )
    limit_wal(database, connection, "1MB")
    lost = "SELECT wal_status = 'lost' FROM pg_replication_slots"

    def is_lost() -> bool:
        run(database, "SELECT pg_logical_emit_message(FALSE, 'much', repeat('x', 16777216))", "SELECT pg_switch_wal()")
        run(database, "CHECKPOINT")
        return bool(value(connection, lost))

    until(is_lost, "the slot is lost")
    (finding,) = ask(connection)
    assert finding.severity == "critical"
    assert "audius_challenges_share_1_of_2 has lost WAL" in finding.what
    connection.execute(finding.statement)
    limit_wal(database, connection, None)


def test_a_slot_that_holds_much_is_told_of_while_somebody_reads_it(database: Discovery, connection: Connection) -> None:
    loader = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
    replace_package(connection, "much", "MUCH_WAL = -1", "operation/checks_of_replication")
    limit_wal(database, connection, "1GB")
    run(
        database,
        "SELECT pg_create_logical_replication_slot('audius_challenges_share_0_of_2', 'pgoutput')",
    )
    dsn = database.cluster.dsn(database.name)
    program = ["--dbname", dsn, "--slot=audius_challenges_share_0_of_2", "--start", "--file=-"]
    options = ["--option=proto_version=1", "--option=publication_names=none"]
    reader = subprocess.Popen(
        [shutil.which("pg_recvlogical") or database.cluster.bin_dir / "pg_recvlogical", *program, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: value(connection, "SELECT active FROM pg_replication_slots"), "somebody reads it")
        (finding,) = ask(connection)
        assert (finding.severity, finding.what) == ("warning", "a share is far behind")
        assert finding.found.startswith("slot audius_challenges_share_0_of_2 holds ")
        assert finding.expected
    finally:
        reader.terminate()
        reader.wait()
    until(lambda: not value(connection, "SELECT active FROM pg_replication_slots"), "nobody reads it")
    run(
        database,
        "SELECT pg_drop_replication_slot('audius_challenges_share_0_of_2')",
    )
    limit_wal(database, connection, None)
    connection.execute(loader)


def test_a_transaction_that_holds_up_a_copy_is_told_of(database: Discovery, connection: Connection) -> None:
    loader = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
    replace_package(connection, "hasty", "PATIENCE = 0", "operation/checks_of_replication")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'"
    with closing(database.connect(autocommit=False)) as writer:
        writer.execute("UPDATE challenges SET active = active")
        dsn = f"{database.cluster.dsn(database.name)} replication=database application_name=a_copy"
        make = ["psql", f"--dbname={dsn}", "--command=CREATE_REPLICATION_SLOT a_copy TEMPORARY LOGICAL pgoutput"]
        maker = subprocess.Popen(make, stdout=subprocess.DEVNULL)
        try:
            until(lambda: value(connection, waiting), "it waits")
            (finding,) = [each for each in ask(connection) if "holds up" in each.what]
            assert finding.what == 'an open transaction holds up "a_copy", which cannot begin to copy'
            assert finding.found.startswith(f"process {writer.info.backend_pid} of postgres: idle in transaction, ")
            connection.execute(finding.statement)
            assert maker.wait(timeout=60) == 0
        finally:
            maker.kill()
            maker.wait()
    connection.execute(loader)


def test_who_has_been_paid_gets_block_0_and_others_the_present_one(connection: Connection) -> None:
    connection.execute("SELECT build.block(1000)")
    for user in (1, 2, 3):
        connection.execute("SELECT build.person(%s)", (user,))
        connection.execute("SELECT build.complete('v', %s, %s, 5, blocknumber => NULL)", (user, str(user)))
    connection.execute("SELECT build.disbursed('v', 1, '1')")
    connection.execute(
        "INSERT INTO sol_reward_disbursements (signature, instruction_index, amount, slot, user_bank, challenge_id,"
        " specifier) VALUES ('s', 0, 1, 1, 'b', 'v', '2')"
    )
    (finding,) = ask(connection)
    assert finding.found == "3 rows"

    connection.execute(finding.statement)

    assert rows(connection, "SELECT user_id, completed_blocknumber FROM user_challenges ORDER BY 1") == [
        (1, 0),
        (2, 0),
        (3, 1000),
    ]
    for table in ("user_challenges", "challenge_disbursements", "sol_reward_disbursements", "users", "blocks"):
        connection.execute(f"DELETE FROM {table}")


def test_a_large_table_is_not_read_without_an_index(connection: Connection) -> None:
    loader = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
    replace_package(connection, "small", "MOST_PAGES = -1", "operation/checks_of_data")
    connection.execute("SELECT build.person(255)")
    connection.execute(COMPLETE.format("NULL"))
    (finding,) = ask(connection)
    assert (finding.severity, finding.what) == ("notice", "not checked: block numbers of complete rows")

    connection.execute(finding.statement)

    assert [each.found for each in ask(connection)] == ["1 row"]
    connection.execute("DROP INDEX user_challenges_completed_blocknumber_idx")
    connection.execute("DELETE FROM user_challenges")
    connection.execute("DELETE FROM users")
    connection.execute(loader)


def test_challenges_that_fail_are_found_until_they_succeed(connection: Connection) -> None:
    connection.execute("UPDATE challenges SET amount = 'five' WHERE id = 'v'")
    for severity, failures in (("warning", 1), ("warning", 2), ("critical", 3)):
        with pytest.raises(Exception, match=r"1 of \d+ challenges failed: v"):
            tick(connection)
        (finding,) = (each for each in ask(connection) if each.what == 'challenge "v" fails')
        assert (finding.severity, finding.found.split(":")[0]) == (severity, f"{failures} times in a row")
        assert finding.expected == "UPDATE challenges SET amount = ... WHERE id = 'v';"
    connection.execute("UPDATE challenges SET amount = '5' WHERE id = 'v'")
    tick(connection)


# What grant_run has given the role, and PUBLIC has not: words between GRANT or REVOKE and the role.
GRANTED = """
    WITH access_list AS (
        SELECT format('%s %s', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass) AS object,
            relacl AS entries
        FROM pg_class
        UNION ALL
        SELECT format('ROUTINE %s', oid::regprocedure), proacl
        FROM pg_proc
        UNION ALL
        SELECT format('SCHEMA %I', nspname), nspacl
        FROM pg_namespace
    )
    SELECT format('%s ON %s', entry.privilege_type, access_list.object)
    FROM access_list
    CROSS JOIN aclexplode(entries) AS entry
    WHERE entry.grantee = 'runner'::regrole
        AND NOT EXISTS (
            SELECT FROM aclexplode(entries) AS to_all
            WHERE to_all.grantee = 0 AND to_all.privilege_type = entry.privilege_type
        )
    ORDER BY 1
"""


LACKS = re.compile("role runner lacks privileges( that ticks do without)?")


def test_each_grant_of_a_role_that_ticks_is_missed(database: Discovery, connection: Connection) -> None:
    run(database, *RUNNER)
    granted = [grant for (grant,) in rows(connection, GRANTED)]
    for expected in (
        "DELETE ON TABLE audius_challenges.history",
        "EXECUTE ON ROUTINE audius_challenges.tick(interval)",
        "SELECT ON TABLE challenge_status",
        "USAGE ON SCHEMA cron",
        "USAGE ON SEQUENCE notification_id_seq",
    ):
        assert expected in granted
    for grant in granted:
        connection.execute(f"REVOKE {grant} FROM runner")

        # Of the triggers' tables, the check of the triggers says so, too.
        found = [each for each in ask(connection) if LACKS.fullmatch(each.what)]

        assert len(found) == 1, grant
        (finding,) = found
        privilege, name = re.fullmatch(r"(\w+) ON \w+ (.*)", grant).groups()  # type: ignore[union-attr]
        assert finding.found.startswith(f"{privilege} ON "), (grant, finding)
        assert name in finding.found, (grant, finding)
        assert finding.statement == "SELECT audius_challenges.grant_run('runner');"
        connection.execute(finding.statement)
    is_well(connection)
    run(database, *NO_RUNNER)


def test_what_a_tick_can_do_without_is_only_worth_knowing(database: Discovery, connection: Connection) -> None:
    run(database, *RUNNER, "REVOKE USAGE ON SCHEMA cron FROM runner")
    (finding,) = ask(connection)
    assert (finding.severity, finding.found) == ("notice", "USAGE ON SCHEMA cron")
    run(database, "REVOKE EXECUTE ON PROCEDURE audius_challenges.tick FROM runner")
    (finding,) = ask(connection)
    assert (finding.severity, finding.what) == ("critical", "role runner lacks privileges")
    run(database, *NO_RUNNER)


def test_grants_on_columns_do_where_they_are_on_all_that_are_read(database: Discovery, connection: Connection) -> None:
    run(
        database,
        *RUNNER,
        "REVOKE SELECT ON users FROM runner",
        "GRANT SELECT (user_id, is_current) ON users TO runner",
    )
    (finding,) = ask(connection)
    assert (finding.severity, finding.found) == ("critical", "SELECT ON public.users")

    columns = ", ".join([*TABLES["users"].columns, "xmin"])
    run(database, f"GRANT SELECT ({columns}) ON users TO runner")

    is_well(connection)
    with closing(database.connect()) as session:
        session.execute("SET ROLE runner")
        statuses = {status for (status,) in rows(session, "SELECT status FROM reconcile_challenges()")}
        assert statuses == {"ok", "inactive"}
    run(database, *NO_RUNNER)


def test_a_challenge_that_may_not_is_mended_by_a_grant(database: Discovery, connection: Connection) -> None:
    run(database, *RUNNER, "REVOKE SELECT ON saves FROM runner")
    with closing(database.connect()) as session:
        session.execute("SET SESSION AUTHORIZATION runner")
        with pytest.raises(Exception, match=r"\d+ of \d+ challenges failed"):
            tick(session)
        failing = [each for each in ask(connection) if each.what.endswith(" fails")]
        assert failing
        finding = failing[0]
        assert "permission denied for table saves (SQLSTATE 42501)" in finding.found
        assert finding.statement == "SELECT audius_challenges.grant_run('runner');"
        connection.execute(finding.statement)
        tick(session)
    is_well(connection)
    run(database, *NO_RUNNER)


def test_users_set_aside_are_found_until_they_are_written(connection: Connection) -> None:
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0001'; END $$"
    )
    connection.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON user_challenges FOR EACH ROW WHEN (new.user_id = 255)"
        " EXECUTE FUNCTION refuse()"
    )
    for user in (255, 256):
        connection.execute("SELECT build.person(%s, is_verified => TRUE)", (user,))
    tick(connection)

    (finding,) = ask(connection)

    assert (finding.severity, finding.statement) == ("warning", "")
    assert finding.what == 'users of challenge "v" are set aside: their rows cannot be written'
    assert re.fullmatch("1 in all; user 255: .*not this one.*", finding.found)
    connection.execute("DROP FUNCTION refuse() CASCADE")
    tick(connection)
    is_well(connection)
    connection.execute("DELETE FROM user_challenges")
    connection.execute("DELETE FROM users")


def test_a_lock_that_is_kept_is_ended(database: Discovery, connection: Connection) -> None:
    connection.execute(
        "UPDATE audius_challenges.last_tick SET ended_at = now() - INTERVAL '1 day', scheduled_at = NULL"
    )
    with closing(database.connect(autocommit=False)) as forgotten:
        forgotten.execute("SELECT count(*) FROM reconcile_challenges()")
        (finding,) = ask(connection)
        assert finding.statement == f"SELECT pg_terminate_backend({forgotten.info.backend_pid});"
        run(database, finding.statement)
        until(lambda: not rows(connection, "SELECT FROM pg_locks WHERE locktype = 'advisory'"), "its end")
    tick(connection)


def test_what_a_tick_has_found_is_said_with_what_to_do(database: Discovery, connection: Connection) -> None:
    connection.execute("SET audius_challenges.enabled = 'off'")
    connection.execute("CALL audius_challenges.tick()")
    (finding,) = ask(database)
    assert (finding.severity, finding.what, finding.found) == (
        "critical",
        "nothing ticks",
        "audius_challenges.enabled is off",
    )
    connection.execute("RESET audius_challenges.enabled")
    tick(connection)


def test_a_key_that_is_gone_comes_back(database: Discovery, connection: Connection) -> None:
    connection.execute("ALTER TABLE user_challenges DROP CONSTRAINT user_challenges_pkey")
    found = {finding.what: finding for finding in ask(connection)}
    assert found["ticks take the database for one that is being restored"].severity == "critical"
    statements = {finding.statement for finding in found.values() if "ADD PRIMARY KEY" in finding.statement}
    assert statements == {"ALTER TABLE public.user_challenges ADD PRIMARY KEY (challenge_id, specifier);"}
    run(database, *statements)


def test_a_restore_is_found(database: Discovery, connection: Connection) -> None:
    with closing(database.connect()) as restore:
        restore.execute("SET application_name = 'pg_restore'")
        (finding,) = ask(connection)
        assert (finding.severity, finding.found) == ("critical", "pg_restore is connected")
        assert finding.expected == "Wait until pg_restore has finished."


def test_old_transactions_are_found(database: Discovery, connection: Connection) -> None:
    loader = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
    replace_package(connection, "impatient", "PATIENCE = 0", BY_TICKS)
    with closing(database.connect(autocommit=False)) as old:
        old.execute("SELECT pg_current_xact_id()")
        (finding,) = ask(connection)
        assert finding.severity == "warning"
        assert finding.what == "an old transaction makes every tick read again what was written since"
        assert finding.statement == f"SELECT pg_terminate_backend({old.info.backend_pid});"
        run(database, finding.statement)
        until(lambda: ask(connection)[0].severity == "ok", "its end")

    with closing(database.connect(autocommit=False)) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT FROM users")
        (finding,) = ask(connection)
        assert (finding.severity, finding.what) == ("notice", "an old transaction holds VACUUM back")
        reader.rollback()

    with closing(database.connect(autocommit=False)) as prepares:
        prepares.execute("INSERT INTO blocks (blockhash) VALUES ('b')")
        prepares.execute("PREPARE TRANSACTION 'forgotten'")
    (finding,) = ask(connection)
    assert finding.severity == "warning"
    assert finding.what == "an old prepared transaction makes every tick read again what was written since"
    assert "ROLLBACK PREPARED 'forgotten';" in finding.expected
    run(database, "ROLLBACK PREPARED 'forgotten'")
    is_well(connection)
    connection.execute(loader)


def test_more_or_fewer_jobs_than_needed_are_found(connection: Connection) -> None:
    if knows_seconds(connection):
        connection.execute(
            "SELECT cron.schedule('audius_challenges tick +30s', '0 * * * *', 'CALL audius_challenges.tick()')"
        )
        severity, what = "notice", "more jobs than needed"
    else:
        connection.execute("SELECT * FROM schedule_challenges()")
        connection.execute("UPDATE cron.job SET active = FALSE WHERE jobname = 'audius_challenges tick +30s'")
        severity, what = "warning", "one of the two jobs that tick is missing or inactive"
    (finding,) = ask(connection)
    assert (finding.severity, finding.what) == (severity, what)
    connection.execute(finding.statement)
    is_well(connection)
    connection.execute(EVERY_HOUR)


def test_another_version_on_the_server_is_found(connection: Connection) -> None:
    version = value(connection, "SELECT extversion FROM pg_extension WHERE extname = 'audius_challenges'")
    set_version = "UPDATE pg_extension SET extversion = %s WHERE extname = 'audius_challenges'"
    connection.execute(set_version, ("1.9.0",))
    (finding,) = ask(connection)
    assert (finding.severity, finding.found) == (
        "notice",
        f"1.9.0 in this database, {version} on the server",
    )
    assert finding.statement == "ALTER EXTENSION audius_challenges UPDATE;"
    connection.execute(set_version, (version,))


def test_a_package_that_another_python_has_compiled_works_and_is_compiled_anew(
    database: Discovery, connection: Connection
) -> None:
    load = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
    other, replaced = re.subn(r"^(BYTECODE = \('\w+', ')\w+'", r"\1fe0f0d0a'", load, flags=re.MULTILINE)
    assert replaced == 1
    connection.execute(other)
    for where in (database, connection):
        (finding,) = ask(where)
        assert (finding.severity, finding.what) == ("notice", "each session compiles the package")
        assert finding.statement == "SELECT audius_challenges.compile();"
    run(database, "CALL audius_challenges.tick()")
    connection.execute(finding.statement)
    is_well(database)


def test_an_index_that_is_gone_is_named_and_created(discovery: Discovery) -> None:
    gone = """
        SELECT format(
            CASE WHEN contype IS NULL THEN 'DROP INDEX %%I' ELSE 'ALTER TABLE %%2$I DROP CONSTRAINT %%1$I CASCADE' END,
            built.relname,
            relation.relname
        )
        FROM pg_index
        INNER JOIN pg_class AS built ON built.oid = indexrelid
        INNER JOIN pg_class AS relation ON relation.oid = indrelid
        INNER JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
        LEFT JOIN pg_constraint ON conindid = indexrelid AND contype IN ('p', 'u')
        WHERE relation.relname = %s AND attname = %s
    """
    with closing(discovery.connect()) as connection:
        replace_package(connection, "large", "PAGES_WORTH_AN_INDEX = -1", "operation/checks_of_data")
        for index in HELPFUL_INDEXES:
            connection.execute(index.statement())
        for index in (*NEEDED_INDEXES, *HELPFUL_INDEXES):
            for (statement,) in rows(connection, gone, index.table, index.column):
                connection.execute(statement)

            found = [each for each in ask(connection) if each.what.startswith("no index on ")]

            helpful = {other.statement("public") for other in HELPFUL_INDEXES}
            severities = {each.statement: each.severity for each in found}
            assert index.statement("public") in severities
            for statement, severity in severities.items():
                assert severity == ("notice" if statement in helpful else "warning")
                assert statement.startswith(f"CREATE INDEX CONCURRENTLY ON public.{index.table} ({index.column}")
                connection.execute(statement)
            assert not [each for each in ask(connection) if each.what.startswith("no index on ")]


def test_a_statement_leaves_to_people_what_pays_more(connection: Connection) -> None:
    connection.execute("UPDATE challenges SET step_count = 4, cooldown_days = 9 WHERE id = 'u'")
    (finding,) = ask(connection)
    assert finding.found == "step_count: 4 -> 3, cooldown_days: 9 -> 7"
    assert finding.expected == (
        "what prod has, the nearest environment, unless it was changed on purpose;"
        " whether to change cooldown_days is yours to decide"
    )
    assert finding.statement == "UPDATE public.challenges SET step_count = 3 WHERE id = 'u';"
    connection.execute("UPDATE challenges SET step_count = 3, cooldown_days = 7 WHERE id = 'u'")


def test_an_index_that_would_help_is_named_where_a_large_table_would_be_read_by_it(connection: Connection) -> None:
    helpful = COMMENTS_BY_USER.statement("public")
    is_well(connection)
    connection.execute(
        "INSERT INTO comments (comment_id, text, user_id, entity_id, entity_type, created_at, updated_at, txhash,"
        " blockhash) SELECT id, repeat('long', 100), 1, 1, 'Track', now(), now(), '', ''"
        " FROM generate_series(1, 20000) AS id"
    )
    connection.execute("ANALYZE comments")

    (finding,) = ask(connection)

    assert (finding.severity, finding.what) == ("notice", "no index on comments (user_id)")
    assert finding.statement == helpful
    # Nobody who reads it runs.
    connection.execute("CREATE TEMP TABLE active AS SELECT id FROM challenges WHERE active")
    connection.execute("UPDATE challenges SET active = FALSE WHERE id IN ('c', 'cp')")
    assert not [each for each in ask(connection) if each.what == finding.what]
    connection.execute("UPDATE challenges SET active = TRUE WHERE id IN (SELECT id FROM active)")
    connection.execute(finding.statement)
    is_well(connection)
    connection.execute("DROP INDEX comments_user_id_idx")
    connection.execute("TRUNCATE comments")


PARTITIONED = """
    ALTER TABLE {table} RENAME TO whole;
    CREATE TABLE {table} (LIKE whole INCLUDING DEFAULTS) PARTITION BY RANGE (created_at);
    CREATE TABLE part PARTITION OF {table} DEFAULT;
"""
WHOLE = "DROP TABLE {table}; ALTER TABLE whole RENAME TO {table}"


def test_a_partitioned_table_is_offered_no_index_that_it_does_not_take(connection: Connection) -> None:
    connection.execute(PARTITIONED.format(table="comments"))
    found = [each for each in ask(connection) if each.what.startswith("no index on comments")]
    assert {each.statement for each in found} == {
        index.statement("public").replace(" CONCURRENTLY", "") for index in NEEDED_INDEXES if index.table == "comments"
    }
    for each in found:
        assert each.expected.endswith("; the table is partitioned, so writers wait until the index is built")
        connection.execute(each.statement)
    assert not [each for each in ask(connection) if each.what.startswith("no index on comments")]
    connection.execute("INSERT INTO comments SELECT * FROM whole")
    connection.execute(WHOLE.format(table="comments"))


def test_neither_is_a_partitioned_table_that_a_trigger_searches(connection: Connection) -> None:
    trouble = TROUBLES["a trigger's table without an index"]
    for statement in (*trouble.does, PARTITIONED.format(table="notification").replace("created_at", "timestamp")):
        connection.execute(statement)
    (finding,) = (each for each in ask(connection) if each.what == trouble.what)
    assert finding.statement == trouble.statement.replace(" CONCURRENTLY", "")
    assert finding.expected.endswith("writers wait until the index is built")
    connection.execute(finding.statement)
    assert not [each for each in ask(connection) if each.what == trouble.what]
    connection.execute("ALTER SEQUENCE notification_id_seq OWNED BY NONE")
    connection.execute(WHOLE.format(table="notification"))
    connection.execute("ALTER SEQUENCE notification_id_seq OWNED BY notification.id")
    connection.execute("DROP FUNCTION tell() CASCADE")


def test_on_a_standby_statements_are_for_the_primary(new_cluster: NewCluster, root: Path | None) -> None:
    primary = new_cluster()
    database = create_discovery(primary, "discovery")
    database.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION)
    database.psql(
        "UPDATE challenges SET step_count = 4 WHERE id = 'u'",
        "CREATE ROLE watcher",
        "GRANT USAGE ON SCHEMA audius_challenges TO watcher",
        "GRANT EXECUTE ON FUNCTION audius_challenges.doctor() TO watcher",
    )
    data_dir = primary.new_directory("standby")
    options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    primary.run("pg_basebackup", f"--pgdata={primary.inside(data_dir)}", *options)
    with Cluster.adopt(data_dir, root=root) as standby:
        found = {each.what: each for each in ask(Discovery(standby, database.name))}
        with closing(Discovery(standby, database.name).connect()) as session:
            assert value(session, "SELECT pg_is_in_recovery()") is True
            session.execute("SET ROLE watcher")
            (refused,) = ask(session)
    finding = found['challenge "u" differs from the catalog']
    correction = "UPDATE public.challenges SET step_count = 3 WHERE id = 'u';"
    assert finding.statement == ""
    assert finding.expected.endswith(f"; on the primary: {correction}")
    assert [each.statement for each in found.values() if each.statement] == []
    assert [each.statement for each in ask(database) if "step_count" in each.statement] == [correction]
    assert (refused.what, refused.statement) == ("this role may not look", "")
    assert refused.expected.endswith("; on the primary: SELECT audius_challenges.grant_status('watcher');")


def test_the_launcher_that_is_gone_is_found(new_cluster: NewCluster) -> None:
    cluster = new_cluster()
    database = create_discovery(cluster, "discovery")
    database.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION)
    with closing(database.connect()) as connection:
        until(lambda: rows(connection, LAUNCHER), "the launcher")
        is_well(database)
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({LAUNCHER}) AS launcher")
        until(lambda: not rows(connection, LAUNCHER), "its end")
        (finding,) = ask(database)
    assert (finding.severity, finding.what) == ("critical", "nothing ticks")
    assert finding.found == "pg_cron's launcher does not run, so no job starts"
    assert (finding.expected.split(". ")[0], finding.statement) == ("Restart the server", "")
    cluster.restart()
    until(lambda: ask(database)[0].severity == "ok", "the launcher")


def test_without_pg_cron_it_says_how_to_get_it(new_cluster: NewCluster) -> None:
    cluster = new_cluster()
    database = create_discovery(cluster, "discovery")
    database.psql(CREATE_EXTENSION)
    with closing(database.connect()) as connection:
        until(lambda: rows(connection, LAUNCHER), "the launcher")
        (finding,) = ask(database)
        assert (finding.severity, finding.found) == (
            "critical",
            "no tick has come yet, and no schedule is known here",
        )
        assert finding.statement == "CREATE EXTENSION pg_cron; SELECT * FROM public.schedule_challenges();"
        connection.execute(finding.statement)
        until(lambda: ask(database)[0].severity == "ok", "the launcher")


def test_in_a_database_of_another_pg_cron_it_says_what_to_do(discovery: Discovery) -> None:
    (finding,) = (each for each in ask(discovery) if each.severity == "critical")
    assert finding.found == "no tick has come yet, and no schedule is known here"
    assert finding.expected.startswith("The database of pg_cron is postgres. Run there: CREATE EXTENSION")


def test_a_role_with_grant_status_is_told_what_it_does_not_see(connection: Connection) -> None:
    connection.execute("CREATE ROLE watcher LOGIN")
    connection.execute("SELECT audius_challenges.grant_status('watcher')")

    def as_watcher() -> list[Finding]:
        with connection.transaction():
            connection.execute("SET LOCAL ROLE watcher")
            return ask(connection)

    (finding,) = as_watcher()
    assert (finding.severity, finding.what) == ("notice", "not checked: old transactions of other roles")
    connection.execute(finding.statement)
    assert [each.severity for each in as_watcher()] == ["ok"]

    connection.execute("REVOKE SELECT ON track_trending_scores FROM watcher")
    (finding,) = as_watcher()
    assert (finding.severity, finding.what) == ("notice", "not checked: scores")
    connection.execute(finding.statement)
    assert [each.severity for each in as_watcher()] == ["ok"]

    connection.execute("REVOKE EXECUTE ON FUNCTION audius_challenges.examine() FROM watcher")
    (finding,) = as_watcher()
    assert (finding.severity, finding.found) == ("warning", "permission denied for function examine")
    connection.execute(finding.statement)
    # What only a superuser sees of pg_cron, it is told.
    connection.execute("UPDATE cron.job SET active = FALSE")
    assert [each.found for each in as_watcher()] == ["the jobs are switched off (cron.job.active is false)"]
    connection.execute(EVERY_HOUR)
    connection.execute("DROP OWNED BY watcher")
    connection.execute("DROP ROLE watcher")


def test_a_check_that_cannot_be_made_is_a_finding_beside_the_others(connection: Connection) -> None:
    connection.execute("UPDATE challenges SET step_count = 4 WHERE id = 'u'")
    connection.execute("ALTER TABLE audius_challenges.set_aside RENAME TO away")
    first, second = ask(connection)
    assert (first.severity, first.what) == ("warning", "not checked: users set aside")
    assert 'relation "audius_challenges.set_aside" does not exist' in first.found
    assert second.what == 'challenge "u" differs from the catalog'
    connection.execute("ALTER TABLE audius_challenges.away RENAME TO set_aside")
    connection.execute("UPDATE challenges SET step_count = 3 WHERE id = 'u'")


def test_without_plpython_it_says_so(database: Discovery, connection: Connection) -> None:
    set_library = "UPDATE pg_proc SET probin = %s WHERE proname = 'plpython3_call_handler'"
    connection.execute(set_library, ("$libdir/gone",))
    (finding,) = ask(database)
    assert finding.severity == "critical"
    assert finding.what == "the extension cannot run its code, so nothing ticks"
    assert re.match(r'could not access file "(\$libdir/)?gone"', finding.found)
    assert "install PostgreSQL's PL/Python" in finding.expected
    connection.execute(set_library, ("$libdir/plpython3",))


def test_in_a_database_without_the_tables_it_says_where_they_are_looked_for(empty_database: Discovery) -> None:
    empty_database.psql(CREATE_EXTENSION)
    found = {finding.what: finding for finding in ask(empty_database)}
    tables = found["ticks take the database for one that is being restored"]
    assert (tables.severity, tables.found) == ("critical", "there is no table public.user_challenges")
    assert "CREATE EXTENSION ... SCHEMA sets another" in tables.expected
    assert not [what for what in found if what.startswith("not checked: ")]


def test_it_writes_nothing(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        assert value(connection, "SELECT severity FROM audius_challenges.doctor()") == "ok"
        assert value(connection, "SELECT pg_current_xact_id_if_assigned()") is None


def test_statements_name_the_schema_so_that_they_run_whatever_the_search_path_is(connection: Connection) -> None:
    connection.execute("UPDATE challenges SET step_count = 4 WHERE id = 'u'")
    connection.execute("SELECT * FROM unschedule_challenges()")
    connection.execute("SET search_path = pg_catalog")
    found = [Finding(*row) for row in rows(connection, "SELECT * FROM audius_challenges.doctor()")]
    assert {each.what for each in found} == {"nothing ticks", 'challenge "u" differs from the catalog'}
    for each in found:
        connection.execute(each.statement)
    connection.execute("RESET search_path")
    connection.execute(EVERY_HOUR)
