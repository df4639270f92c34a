"""CREATE EXTENSION wherever it can be called, DROP EXTENSION, and what a role may do with which grants."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import BUILDERS, SCHEMA, Discovery, create_discovery, require_extension
from tests.sessions import (
    RUN_ORDER,
    Connection,
    Notice,
    column,
    completed,
    knows_seconds,
    notices,
    row_versions,
    rows,
    shown,
    statuses,
    tick,
    value,
    well,
)

ADOPT = Notice(
    "user_challenges is not empty, so another service may be paying: nothing was scheduled",
    "Follow docs/how-to/adopt.md: a dry run, audius_challenges.start_from_now(), stop the other service,"
    " schedule_challenges().",
)

# Who is verified, has a full profile, three tracks, a playlist, plays, a streak, and wins on a Friday: all but p3.
WINNER = (
    """
    SELECT build.person(
        255, bio => 'b', name => 'n', profile_picture => 'p', cover_photo => 'c', is_verified => TRUE
    )
    """,
    "SELECT build.person(n) FROM generate_series(1, 5) AS n",
    "SELECT build.follow(255, n) FROM generate_series(1, 5) AS n",
    "SELECT build.save(255, 1), build.repost(255, 1)",
    "SELECT build.track(n, 255, blocknumber => 25346436) FROM generate_series(1, 3) AS n",
    "SELECT build.playlist(1, 255, blocknumber => 28350000)",
    "SELECT build.monthly(1, '2026-01-01', 1000)",
    "SELECT build.track_score(1, 10), build.track_score(2, 9, 'UNDERGROUND_TRACKS'), build.playlist_score(1, 10)",
    """
    INSERT INTO track_trending_scores (track_id, type, version, time_range, score, created_at)
    SELECT 3, 'UNDERGROUND_TRACKS', 'pnagD', 'week', 8, now()
    """,
    "SELECT build.play(255, 1, TIMESTAMP '2026-01-01 12:00' + n * INTERVAL '1 day') FROM generate_series(0, 6) AS n",
)


WON = {"u": 1, "fp": 1, "p": 1, "v": 1, "e": 1, "p1": 1, "p2": 1, "tt": 1, "tut": 2, "tp": 1}
"""How many complete rows that makes."""


def winnings(connection: Connection) -> dict[str, int]:
    """Challenge → how many complete rows there are."""
    return Counter(column(connection, "SELECT challenge_id FROM user_challenges WHERE is_complete"))


def create_extension(connection: Connection, options: str = "") -> list[Notice]:
    """Creates the extension and returns the notices, those on plpython3u aside."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS plpython3u")
    with notices(connection) as heard:
        connection.execute(f"CREATE EXTENSION audius_challenges {options}")
    return heard


@contextmanager
def in_schema(connection: Connection, quoted: str) -> Iterator[None]:
    """Unqualified names are of this schema."""
    connection.execute(f"SET search_path = {quoted}")
    yield
    connection.execute("RESET search_path")


def inserted(notice: Notice) -> list[str]:
    """The challenges that the notice says were inserted into the catalog, sorted."""
    beginning = "inserted into challenges: "
    assert notice.message.startswith(beginning)
    assert notice.hint is None
    return sorted(notice.message.removeprefix(beginning).split(", "))


@pytest.fixture(scope="module")
def cron_database(root: Path | None) -> Iterator[Discovery]:
    """A discovery database with pg_cron, which the tests of this file share."""
    with Cluster(root=root) as cluster:
        require_extension(cluster)
        discovery = create_discovery(cluster, "discovery")
        discovery.psql("CREATE EXTENSION pg_cron", "CREATE EXTENSION plpython3u")
        yield discovery


@pytest.fixture
def cron_discovery(cron_database: Discovery) -> Iterator[Discovery]:
    """The database with pg_cron, without the extension, and empty."""
    yield cron_database
    empty(cron_database)


def empty(cron_database: Discovery) -> None:
    """Takes the extension, the schedule and every row out of the database with pg_cron."""
    with closing(cron_database.connect()) as connection:
        connection.execute("DROP EXTENSION IF EXISTS audius_challenges")
        tables = column(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        connection.execute(f"TRUNCATE {', '.join(tables)}, cron.job, cron.job_run_details RESTART IDENTITY")


# CREATE EXTENSION


def test_a_discovery_database_with_an_empty_catalog_gets_the_rows_of_production(bare_discovery: Discovery) -> None:
    with closing(bare_discovery.connect()) as connection:
        heard = create_extension(connection)

        assert sorted(column(connection, "SELECT id FROM challenges")) == sorted(RUN_ORDER)
        assert rows(connection, "SELECT * FROM sync_challenge_catalog('prod')") == []  # so they are production's
        assert inserted(heard[0]) == sorted(RUN_ORDER)
        assert heard[1:] == [
            Notice("pg_cron is not installed in this database: nothing was scheduled", heard[1].hint),
        ]
        there = "The database of pg_cron is postgres. Run there: CREATE EXTENSION IF NOT EXISTS pg_cron; SELECT cron."
        assert (heard[1].hint or "").startswith(there)


def test_differing_catalog_rows_are_left_alone_and_reported(bare_discovery: Discovery) -> None:
    with closing(bare_discovery.connect()) as connection:
        connection.execute(
            """
            INSERT INTO challenges VALUES
                ('p', 'numeric', '5', FALSE, 7, 0, 25000, NULL),
                ('v', 'boolean', '5', TRUE, NULL, 0, 25000, NULL),
                ('x', 'numeric', 'ten', TRUE, 1, 0, 1, 1)
            """
        )
        versions = "SELECT ctid, xmin, challenges FROM challenges WHERE id IN ('p', 'v', 'x') ORDER BY id"
        before = rows(connection, versions)

        heard = create_extension(connection)

        assert rows(connection, versions) == before
        differing = next(one for one in heard if "differs" in one.message)
        assert [differing] == [
            Notice(
                'challenge "p" differs from the catalog of prod and was not changed'
                " (amount: 5 -> 1, active: false -> true, cooldown_days: null -> 7)",
                "UPDATE challenges SET amount = '1', active = true, cooldown_days = 7 WHERE id = 'p';",
            ),
        ]
        missing = [one for one in heard if "was not inserted" in one.message]
        assert len(missing) == len(RUN_ORDER) - 2
        assert len(heard) == len(missing) + 2  # and the one on pg_cron
        # All but that one are production's.
        aligned = "SELECT challenge_id, action FROM sync_challenge_catalog('prod')"
        with connection.transaction(force_rollback=True):
            assert dict(rows(connection, aligned)) == {
                challenge: "updated" if challenge == "p" else "inserted" for challenge in RUN_ORDER if challenge != "v"
            }
        # The hint corrects that one.
        connection.execute(differing.hint or "")
        assert "p" not in dict(rows(connection, aligned))


LACKING = {
    "type": ("DROP COLUMN type", 'table "public.challenges" has no column type'),
    "two": (
        "DROP COLUMN weekly_pool, DROP COLUMN cooldown_days",
        'table "public.challenges" has no column weekly_pool, cooldown_days',
    ),
    "text": (
        "ALTER COLUMN weekly_pool TYPE text",
        'table "public.challenges" has weekly_pool of another type than integer',
    ),
    "amount": (
        "ALTER COLUMN amount TYPE integer USING 0",
        'column "amount" of table "public.challenges" is of type integer',
    ),
}


@pytest.mark.parametrize("name", LACKING)
def test_a_catalog_that_cannot_be_filled_is_said_in_one_sentence(bare_discovery: Discovery, name: str) -> None:
    """By all who compare it. Runs read none of these columns, but the amount."""
    change, lacking = LACKING[name]
    with closing(bare_discovery.connect()) as connection:
        connection.execute(f"ALTER TABLE challenges {change}")

        (heard,) = create_extension(connection)

        assert heard.message == f"nothing was inserted into challenges, and nothing was scheduled: {lacking}"
        assert "Then DROP EXTENSION audius_challenges; and create it again." in str(heard.hint)
        assert value(connection, "SELECT count(*) FROM challenges") == 0
        with pytest.raises(psycopg.Error) as raised:
            connection.execute("SELECT * FROM sync_challenge_catalog('prod')")
        assert raised.value.diag.message_primary == f"audius_challenges: {lacking}"
        if name == "amount":
            return
        connection.execute(
            """
            INSERT INTO challenges
            SELECT (jsonb_populate_record(
                NULL::challenges, '{"id": "v", "type": "boolean", "amount": "5", "active": true}'
            )).*
            """
        )
        assert statuses(connection)["v"] == ("ok", None)
        found = "SELECT severity, found FROM audius_challenges.doctor() WHERE what LIKE 'the catalog cannot be%'"
        assert rows(connection, found) == [("notice", lacking)]


@pytest.mark.parametrize("order", ["run order", "reversed"])
def test_a_retired_challenge_does_not_come_back(bare_discovery: Discovery, order: str) -> None:
    challenges = RUN_ORDER if order == "run order" else RUN_ORDER[::-1]
    with closing(bare_discovery.connect()) as connection:
        connection.execute("INSERT INTO challenges VALUES ('x', 'boolean', '1', TRUE)")
        versions = "SELECT ctid::text, xmin::text, to_jsonb(challenges) FROM challenges ORDER BY xmin::text::bigint"
        # Every challenge is missing in a catalog that is not empty; then one after the other comes by its name.
        for number, challenge in enumerate(challenges):
            before = rows(connection, versions)
            heard = create_extension(connection)
            assert rows(connection, versions) == before
            missing = [one for one in heard if "was not inserted" in one.message]
            assert {one.message for one in missing} == {
                f'challenge "{retired}" is not in the catalog and was not inserted: it may have been retired'
                for retired in challenges[number:]
            }
            assert column(connection, "SELECT challenge_id FROM challenge_status WHERE status = 'absent'") == [
                each for each in RUN_ORDER if each in challenges[number:]
            ]
            # The hint inserts that one and no other, and changes no row.
            (hint,) = [one.hint or "" for one in missing if f'"{challenge}"' in one.message]
            (statement,) = re.findall(r"SELECT \* FROM sync_challenge_catalog.*;", hint)
            assert rows(connection, statement.replace("*", "challenge_id, action")) == [(challenge, "inserted")]
            assert rows(connection, versions)[: len(before)] == before
            assert sorted(column(connection, "SELECT id FROM challenges")) == sorted(["x", *challenges[: number + 1]])
            connection.execute("DROP EXTENSION audius_challenges")


def test_an_update_brings_no_challenge_back(bare_discovery: Discovery) -> None:
    with closing(bare_discovery.connect()) as connection:
        connection.execute("CREATE EXTENSION audius_challenges VERSION '1.1.0' CASCADE")
        connection.execute("DELETE FROM challenges WHERE id NOT IN ('p')")
        before = rows(connection, "SELECT ctid, xmin, challenges FROM challenges")
        connection.execute("ALTER EXTENSION audius_challenges UPDATE")
        assert rows(connection, "SELECT ctid, xmin, challenges FROM challenges") == before


def test_no_hint_and_no_page_aligns_the_whole_catalog_for_one_row() -> None:
    # The pages that are about aligning a whole catalog, or about nothing but a sample database.
    about_all = {"docs/reference/functions.md", "docs/how-to/run-the-image.md", "CHANGELOG.md"}
    sources = [*REPOSITORY.glob("python/audius_challenges/**/*.py"), *REPOSITORY.glob("sql/*.sql")]
    pages = [*REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("*.md")]
    calls = [
        f"{path.relative_to(REPOSITORY)}: {call}"
        for path in (*sources, *pages)
        for call in re.findall(r"FROM sync_challenge_catalog\([^)]*\)", path.read_text())
        if "{" not in call and str(path.relative_to(REPOSITORY)) not in about_all
    ]
    assert len(pages) > 20
    assert calls == []


def test_it_schedules_itself_where_pg_cron_is_and_nobody_was_paid(cron_discovery: Discovery) -> None:
    with closing(cron_discovery.connect()) as connection:
        heard = create_extension(connection)

        jobs = rows(
            connection,
            """
            SELECT jobname::text, schedule, command, database, nodeport, username, active
            FROM cron.job
            ORDER BY jobname
            """,
        )
        if knows_seconds(connection):
            ticks = [("audius_challenges tick", "30 seconds", "CALL audius_challenges.tick()")]
        else:
            ticks = [
                ("audius_challenges tick", "* * * * *", "CALL audius_challenges.tick()"),
                ("audius_challenges tick +30s", "* * * * *", "CALL audius_challenges.tick(delay => '30 seconds')"),
            ]
        expected = [*ticks, ("audius_challenges trim", "23 3 * * *", "SELECT audius_challenges.trim_run_details()")]
        port = cron_discovery.cluster.port
        assert jobs == [(*job, "discovery", port, "postgres", True) for job in expected]
        assert inserted(heard[0]) == sorted(RUN_ORDER)
        assert [notice.message for notice in heard[1:]] == [
            # cron.use_background_workers is off here
            'pg_cron will connect over libpq; ticks fail with "connection failed" if it needs a password',
            *[f"scheduled: {command} ({schedule})" for _, schedule, command in expected],
        ]


def test_where_another_service_may_be_paying_it_schedules_nothing_and_says_how_to_adopt(
    cron_discovery: Discovery,
) -> None:
    with closing(cron_discovery.connect()) as connection:
        connection.execute("INSERT INTO challenges VALUES ('x', 'boolean', '1', TRUE)")
        connection.execute("INSERT INTO user_challenges VALUES ('x', 1, '1', FALSE, 0)")

        heard = create_extension(connection)

        assert [one for one in heard if "was not inserted" not in one.message] == [ADOPT]
        assert rows(connection, "SELECT * FROM cron.job") == []


def test_an_empty_database_gets_nothing_but_the_extensions_own_objects(empty_database: Discovery) -> None:
    outside = """
        SELECT pg_describe_object(classid, objid, 0)
        FROM (
            SELECT 'pg_class'::regclass AS classid, oid AS objid FROM pg_class
            UNION ALL
            SELECT 'pg_proc'::regclass, oid FROM pg_proc
            UNION ALL
            SELECT 'pg_type'::regclass, oid FROM pg_type
            UNION ALL
            SELECT 'pg_namespace'::regclass, oid FROM pg_namespace WHERE nspname !~ '^pg_t'
            UNION ALL
            SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
        ) AS object
        WHERE objid >= 16384
            AND NOT EXISTS (
                WITH RECURSIVE owner (refclassid, refobjid) AS (
                    VALUES (object.classid::oid, object.objid)
                    UNION
                    SELECT pg_depend.refclassid, pg_depend.refobjid
                    FROM owner
                    INNER JOIN pg_depend
                        ON pg_depend.classid = owner.refclassid
                        AND pg_depend.objid = owner.refobjid
                        AND pg_depend.deptype IN ('e', 'i', 'a')
                )
                SELECT FROM owner WHERE owner.refclassid = 'pg_extension'::regclass
            )
            AND pg_describe_object(classid, objid, 0) !~ 'toast'
    """
    with closing(empty_database.connect()) as connection:
        assert column(connection, outside) == []

        heard = create_extension(connection)

        assert heard == [
            Notice("there are no discovery tables in schema public: only the extension's objects were created", None)
        ]
        assert column(connection, outside) == []
        assert [found for found in row_versions(connection, "audius_challenges").values() if found] == []

        assert shown(connection) == dict.fromkeys(RUN_ORDER, ("absent", None))
        no_catalog = 'table "public.challenges" does not exist'
        for challenge, (status, error) in statuses(connection).items():
            assert (challenge, status, (error or "")[: len(no_catalog)]) == (challenge, "failed", no_catalog)
        (heard_of_tick,) = tick(connection)
        assert heard_of_tick.message == (
            "there is no table public.user_challenges: a restore seems to be under way, nothing was done"
        )
        assert heard_of_tick.hint == (
            "The extension looks for the discovery tables in schema public; CREATE EXTENSION ... SCHEMA sets another."
        )


@pytest.mark.parametrize("schema", ["discovery", "Discovery Provider", "with :limit in it", "with %s in it"])
def test_the_discovery_tables_may_be_in_any_schema(empty_database: Discovery, schema: str) -> None:
    quoted = f'"{schema}"'
    empty_database.psql(f"CREATE SCHEMA {quoted}", f'ALTER DATABASE "{empty_database.name}" SET search_path = {quoted}')
    empty_database.psql(SCHEMA, BUILDERS, f'ALTER DATABASE "{empty_database.name}" RESET search_path')
    with closing(empty_database.connect()) as connection:
        heard = create_extension(connection, f"SCHEMA {quoted}")

        assert inserted(heard[0]) == sorted(RUN_ORDER)
        assert value(connection, f"SELECT count(*) FROM {quoted}.challenges") == len(RUN_ORDER)
        connection.execute("SELECT build.person(255, is_verified => TRUE)")
        with in_schema(connection, quoted):
            assert statuses(connection) == well(connection)
        connection.execute("SELECT build.person(4095, is_verified => TRUE)")
        assert tick(connection) == []
        paid = rows(connection, f"SELECT specifier, amount FROM {quoted}.user_challenges WHERE is_complete ORDER BY 1")
        assert paid == [("ff", 5), ("fff", 5)]
        told = column(connection, f"SELECT user_ids FROM {quoted}.notification ORDER BY id")
        assert told == [[255], [4095]]
        with in_schema(connection, quoted):
            assert shown(connection) == well(connection)
        connection.execute(f"GRANT USAGE ON SCHEMA {quoted} TO public")
        connection.execute("CREATE ROLE in_any_schema")
        try:
            connection.execute("SELECT audius_challenges.grant_run('in_any_schema')")
            connection.execute("SET ROLE in_any_schema")
            assert statuses(connection, f"{quoted}.reconcile_challenges()")["v"] == ("ok", None)
            connection.execute("RESET ROLE")
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP OWNED BY in_any_schema")
            connection.execute("DROP ROLE in_any_schema")


# DROP EXTENSION


def test_drop_extension_changes_no_row_that_it_does_not_own(cron_discovery: Discovery) -> None:
    with closing(cron_discovery.connect()) as connection:
        create_extension(connection)
        for statement in WINNER:
            connection.execute(statement)
        connection.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
        connection.execute("SELECT * FROM reconcile_challenges(as_of => '2026-11-20 12:00Z')")
        assert WON.items() <= winnings(connection).items()
        before = row_versions(connection, "public", "cron")
        assert value(connection, "SELECT is_complete FROM user_challenges WHERE challenge_id = 'p3'") is False
        # Two or three jobs: the schedule is a row of cron.job, which is not ours to delete either.
        jobs = column(connection, "SELECT jobname FROM cron.job ORDER BY jobname")
        assert len(jobs) in (2, 3)
        del before["cron.job_run_details"]

        connection.execute("DROP EXTENSION audius_challenges")

        after = row_versions(connection, "public", "cron")
        del after["cron.job_run_details"]
        assert after == before
        assert value(connection, "SELECT to_regnamespace('audius_challenges')") is None

        assert create_extension(connection) == [
            Notice(
                'challenge "e" differs from the catalog of prod and was not changed (active: true -> false)',
                "UPDATE challenges SET active = false WHERE id = 'e';",
            ),
            ADOPT,
            Notice(f"removed the schedule of an earlier installation: {', '.join(jobs)}", None),
        ]
        assert column(connection, "SELECT jobname FROM cron.job") == []
        again = statuses(connection, "reconcile_challenges(as_of => '2026-11-20 13:00Z')")
        assert again == well(connection)
        assert row_versions(connection, "public") == {
            table: found for table, found in before.items() if table.startswith("public.")
        }


@pytest.mark.parametrize(
    "change", ["ALTER TABLE challenges DROP COLUMN weekly_pool", "SET LOCAL audius_challenges.share = '0/2'"]
)
def test_what_schedules_nothing_leaves_no_schedule(cron_discovery: Discovery, change: str) -> None:
    with closing(cron_discovery.connect()) as connection:
        create_extension(connection)
        jobs = column(connection, "SELECT jobname FROM cron.job ORDER BY jobname")
        connection.execute("DROP EXTENSION audius_challenges")
        with connection.transaction(force_rollback=True):
            connection.execute(change)
            heard = create_extension(connection)
            assert "and nothing was scheduled" in heard[-2].message
            assert heard[-1] == Notice(f"removed the schedule of an earlier installation: {', '.join(jobs)}", None)
            assert column(connection, "SELECT jobname FROM cron.job") == []


# Privileges


def test_public_may_execute_nothing(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        routines = rows(
            connection,
            """
            SELECT
                pg_proc.oid::regprocedure::text,
                EXISTS (
                    SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
                    WHERE grantee = 0
                )
            FROM pg_depend
            INNER JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'audius_challenges'
            INNER JOIN pg_proc ON pg_proc.oid = objid
            WHERE classid = 'pg_proc'::regclass AND deptype = 'e'
            """,
        )
        assert len(routines) >= 12
        assert [routine for routine, is_public in routines if is_public] == []
        relations = rows(
            connection,
            """
            SELECT
                pg_class.oid::regclass::text,
                EXISTS (
                    SELECT FROM aclexplode(coalesce(relacl, acldefault('r', relowner)))
                    WHERE grantee = 0
                )
            FROM pg_depend
            INNER JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'audius_challenges'
            INNER JOIN pg_class ON pg_class.oid = objid
            WHERE classid = 'pg_class'::regclass AND deptype = 'e'
            """,
        )
        assert len(relations) >= 4
        assert [relation for relation, is_public in relations if is_public] == []


CALLS = {
    "reconcile_challenges": "SELECT * FROM reconcile_challenges()",
    "tick": "CALL audius_challenges.tick()",
    "start_from_now": "SELECT audius_challenges.start_from_now()",
    "schedule_challenges": "SELECT * FROM schedule_challenges()",
    "unschedule_challenges": "SELECT * FROM unschedule_challenges()",
    "sync_challenge_catalog": "SELECT * FROM sync_challenge_catalog()",
    "trim_run_details": "SELECT audius_challenges.trim_run_details()",
    "grant_run": "SELECT audius_challenges.grant_run('{role}')",
    "grant_status": "SELECT audius_challenges.grant_status('{role}')",
    "install": "SELECT audius_challenges.install()",
}


@pytest.fixture(scope="module")
def cron_extension(cron_database: Discovery) -> Discovery:
    """The same database with the extension, nothing scheduled, and no rows but the catalog."""
    empty(cron_database)
    with closing(cron_database.connect()) as connection:
        create_extension(connection)
        connection.execute("SELECT * FROM unschedule_challenges()")
        for role in ("reward_service", "reward_reader", "reward_stranger"):
            connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute("SELECT audius_challenges.grant_run('reward_service')")
        connection.execute("SELECT audius_challenges.grant_status('reward_reader')")
    return cron_database


@pytest.fixture(scope="module")
def scheduled_by_a_role(cron_extension: Discovery) -> Discovery:
    """The database, scheduled by a role that has grant_run alone."""
    with closing(cron_extension.connect("reward_service")) as service:
        service.execute("SELECT * FROM schedule_challenges()")
    return cron_extension


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.usefixtures("scheduled_by_a_role")
def test_without_a_grant_nothing_can_be_called(cron_extension: Discovery, call: str) -> None:
    with (
        closing(cron_extension.connect("reward_stranger")) as stranger,
        pytest.raises(errors.InsufficientPrivilege) as refused,
    ):
        stranger.execute(CALLS[call].format(role="reward_stranger"))
    assert (refused.value.diag.message_primary or "").startswith("permission denied for ")


def test_a_role_with_grant_status_reads_the_status(cron_extension: Discovery) -> None:
    with closing(cron_extension.connect("reward_reader")) as reader:
        assert column(reader, "SELECT challenge_id FROM challenge_status") == list(RUN_ORDER)
        assert column(reader, "SELECT unpayable_rows FROM challenge_status") == [0] * len(RUN_ORDER)


@pytest.mark.parametrize("call", CALLS)
def test_a_role_with_grant_status_can_call_nothing_else(cron_extension: Discovery, call: str) -> None:
    with (
        closing(cron_extension.connect("reward_reader")) as reader,
        pytest.raises(errors.InsufficientPrivilege) as refused,
    ):
        reader.execute(CALLS[call].format(role="reward_reader"))
    assert (refused.value.diag.message_primary or "").startswith("permission denied for ")


def test_a_role_with_grant_status_can_write_nothing(cron_extension: Discovery) -> None:
    with closing(cron_extension.connect("reward_reader")) as reader:
        writable = column(
            reader,
            """
            SELECT pg_class.oid::regclass::text
            FROM pg_class
            WHERE relkind IN ('r', 'v', 'p')
                AND relnamespace IN ('public'::regnamespace, 'audius_challenges'::regnamespace)
                AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
            """,
        )
        assert writable == ["user_challenges_log"]  # which takes everybody's rows: it is the tests' own


def test_a_role_with_grant_run_can_do_everything_by_hand(scheduled_by_a_role: Discovery) -> None:
    with (
        closing(scheduled_by_a_role.connect()) as admin,
        closing(scheduled_by_a_role.connect("reward_service")) as service,
    ):
        sync = "SELECT challenge_id, action FROM sync_challenge_catalog('stage')"
        updated = dict(rows(service, sync))
        assert {"p", "u", "fp", "e", "tt", "tut", "tp"} <= updated.keys()
        assert set(updated.values()) == {"updated"}
        assert rows(service, sync) == []
        for statement in WINNER:
            admin.execute(statement)

        assert statuses(service, "reconcile_challenges(as_of => '2026-11-20 12:00Z')") == well(service)
        won = winnings(admin)
        assert WON.items() <= won.items()
        assert value(admin, "SELECT count(*) FROM notification") == sum(won.values())

        admin.execute("SELECT build.person(4095, is_verified => TRUE)")
        assert tick(service) == []
        assert completed(admin, "v") == ["ff", "fff"]
        assert shown(service) == well(service)
        assert statuses(service, "reconcile_challenges(full_scan => TRUE)")["p"] == ("ok", None)
        assert statuses(service, "reconcile_challenges(dry_run => TRUE)")["p"] == ("ok", None)
        started = column(service, "SELECT challenge_id FROM audius_challenges.start_from_now()")
        assert started == list(RUN_ORDER)


def test_a_role_with_grant_run_cannot_hand_it_on(cron_extension: Discovery) -> None:
    with closing(cron_extension.connect("reward_service")) as service:
        for call in ("grant_run", "grant_status", "install"):
            with pytest.raises(errors.InsufficientPrivilege):
                service.execute(CALLS[call].format(role="reward_stranger"))


def test_a_role_with_grant_run_keeps_the_schedule(scheduled_by_a_role: Discovery) -> None:
    # That a role's jobs really tick, and as that role, is in test_scheduling.
    with (
        closing(scheduled_by_a_role.connect()) as admin,
        closing(scheduled_by_a_role.connect("reward_service")) as service,
    ):
        assert set(column(admin, "SELECT username::text FROM cron.job")) == {"reward_service"}
        admin.execute(
            """
            INSERT INTO cron.job_run_details (runid, username, command, status, start_time, end_time)
            SELECT n, username, command, 'succeeded', now() - INTERVAL '8 days', now() - INTERVAL '8 days'
            FROM cron.job
            CROSS JOIN generate_series(1001, 1003) AS n
            WHERE jobname = 'audius_challenges tick'
            """
        )
        assert value(service, "SELECT audius_challenges.trim_run_details()") == 3
        jobs = column(admin, "SELECT jobname::text FROM cron.job ORDER BY 1")
        assert column(service, "SELECT jobname FROM unschedule_challenges() ORDER BY 1") == jobs
        assert rows(admin, "SELECT * FROM cron.job") == []


def test_grants_to_a_role_that_does_not_exist_name_it(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        for function in ("grant_run", "grant_status"):
            with pytest.raises(psycopg.errors.UndefinedObject) as missing:
                connection.execute(f"SELECT audius_challenges.{function}('nobody here')")
            assert missing.value.diag.message_primary == 'role "nobody here" does not exist'
