"""ALTER EXTENSION … UPDATE from every release: the objects of a fresh install, all state kept, whoever is at work.

What 1.1.0 had read and not read is in test_conversion.py.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from psycopg import errors

from devtools import REPOSITORY
from devtools.discovery import Discovery, create_discovery, require_extension
from tests.anatomy import anatomy
from tests.histories import FILLED_USERS, contents, dump, fill, goes_on
from tests.sessions import (
    RUN_LOCK,
    RUN_ORDER,
    TICK,
    Beside,
    Connection,
    NewCluster,
    column,
    completed,
    failed,
    failing,
    knows_seconds,
    replace_package,
    row_versions,
    rows,
    shown,
    tick,
    until,
    value,
    well,
)

PRESENT = "SELECT default_version FROM pg_available_extensions WHERE name = 'audius_challenges'"
VERSION = "SELECT extversion FROM pg_extension WHERE extname = 'audius_challenges'"
RELEASES = sorted(path.stem.split("--")[1] for path in (REPOSITORY / "extension" / "releases").glob("*.sql"))
UPDATE = "ALTER EXTENSION audius_challenges UPDATE"
LOADED = """
    DO LANGUAGE plpython3u $$
    from audius_challenges import __version__ as version
    plpy.execute("SELECT set_config('upgrade.loaded', " + plpy.quote_literal(version) + ", false)")
    $$
"""


def create_release(discovery: Discovery, release: str) -> None:
    """Creates the extension as it was released."""
    discovery.psql(f"CREATE EXTENSION audius_challenges VERSION '{release}' CASCADE")


def loaded(connection: Connection) -> str:
    """The version of the package that this session has loaded."""
    connection.execute(LOADED)
    version: str = value(connection, "SELECT current_setting('upgrade.loaded')")
    return version


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Each version that was ever released."""
    version: str = request.param
    return version


@pytest.fixture
def old(bare_discovery: Discovery, release: str) -> Discovery:
    """A discovery database with the extension in that version."""
    create_release(bare_discovery, release)
    return bare_discovery


@pytest.fixture
def copy(old: Discovery) -> Iterator[Discovery]:
    """An empty database beside it."""
    name = f"{old.name}_copy"
    old.cluster.create_database(name)
    yield Discovery(old.cluster, name)
    old.cluster.drop_database(name)


@pytest.fixture
def roles(old: Discovery) -> Iterator[None]:
    """Roles with grants of every kind, and settings, as operators make them."""
    name = old.name
    try:
        old.psql(
            "CREATE ROLE upgrade_runner LOGIN",
            "CREATE ROLE upgrade_reader",
            "CREATE ROLE upgrade_custom",
            "SELECT audius_challenges.grant_run('upgrade_runner')",
            "SELECT audius_challenges.grant_status('upgrade_reader')",
            "GRANT EXECUTE ON FUNCTION reconcile_challenges TO upgrade_custom WITH GRANT OPTION",
            "GRANT EXECUTE ON FUNCTION sync_challenge_catalog TO upgrade_custom WITH GRANT OPTION",
            "GRANT EXECUTE ON FUNCTION sync_challenge_catalog TO PUBLIC",
            "GRANT EXECUTE ON PROCEDURE audius_challenges.tick TO PUBLIC",
            "GRANT SELECT (challenge_id, status) ON challenge_status TO PUBLIC",
            "GRANT SELECT ON audius_challenges.checkpoint TO upgrade_custom, PUBLIC",
            "GRANT USAGE ON SCHEMA audius_challenges TO PUBLIC",
            "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO upgrade_custom",
            f"ALTER DATABASE {name} SET audius_challenges.max_completions = 77",
            f"ALTER ROLE upgrade_runner IN DATABASE {name} SET audius_challenges.enabled = on",
        )
        yield
    finally:
        owned = "DROP OWNED BY upgrade_runner, upgrade_reader, upgrade_custom"
        old.psql(owned, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM upgrade_custom")
        old.psql("DROP ROLE upgrade_runner, upgrade_reader, upgrade_custom")


def privileges(connection: Connection) -> dict[str, list[str]]:
    """Who may do what with the extension's objects, and what is set for the database."""
    described = """
        SELECT concat_ws(' ', kind, name, acl)
        FROM (
            SELECT 'routine', oid::regproc::text, proacl::text FROM pg_proc
            WHERE pronamespace = 'audius_challenges'::regnamespace OR proname ~ 'challenge(s|_catalog)$'
            UNION ALL
            SELECT 'relation', oid::regclass::text, relacl::text FROM pg_class
            WHERE relnamespace = 'audius_challenges'::regnamespace OR relname = 'challenge_status'
            UNION ALL
            SELECT 'column', attrelid::regclass || '.' || attname, attacl::text FROM pg_attribute
            WHERE attacl IS NOT NULL AND attrelid = 'challenge_status'::regclass
            UNION ALL
            SELECT 'schema', nspname, nspacl::text FROM pg_namespace WHERE nspname = 'audius_challenges'
        ) AS granted (kind, name, acl)
        ORDER BY 1
    """
    settings = """
        SELECT setrole::regrole::text || unnest(setconfig)
        FROM pg_db_role_setting
        INNER JOIN pg_database ON pg_database.oid = setdatabase AND datname = current_database()
        ORDER BY 1
    """
    return {"privileges": column(connection, described), "settings": column(connection, settings)}


def everything_kept(connection: Connection) -> dict[str, list[Any]]:
    """Every row version of every table, and every grant and setting, but for what an update makes something else of."""
    found: dict[str, list[Any]] = {
        **row_versions(connection, "public", "audius_challenges", "cron"),
        **privileges(connection),
    }
    converted = {
        "processor_state",
        "checkpoint",
        "look",
        "pause",
        "set_aside",
        "last_tick",
        "unpaid_friday",
        "passed_over",
        "verified_user",
        "tastemaker_decision",
        "history",
        "challenge_day",
        "day_backfill",
        "slice",
        "share_plan",
        "share_beat",
        "share_batch",
        "share_node",
        "share_sent",
    }
    kept = {name: rows for name, rows in found.items() if name.removeprefix("audius_challenges.") not in converted}
    made_anew = (
        r"\.(checkpoint|look|pause|set_aside|last_tick|unpaid_friday|passed_over|schedule_facts|tick_problem"
        r"|verified_user|tastemaker_decision|history|challenge_day|day_backfill|slice|compile)(_pkey|_undone|\(\))?\b"
        r"|\.share_(plan|beat|batch|node|sent|status)"
        r"|routine audius_challenges\.(trigger_needs|undisbursed|metrics|doctor|examine|job_facts|resend)\b"
        r"|routine audius_challenges\.(help|begin_full_scan)\b"
        r"|routine audius_challenges\.\w*(share|adoption)\w*\b"
    )
    kept["privileges"] = [one for one in kept["privileges"] if not re.search(made_anew, one)]
    return kept


def states(connection: Connection) -> dict[str, dict[str, Any]]:
    """What is remembered of each challenge, by id."""
    found = column(connection, "SELECT to_jsonb(state) FROM audius_challenges.processor_state AS state")
    return {state["challenge_id"]: state for state in found}


def grants(connection: Connection, table: str) -> set[tuple[str, str]]:
    """Who besides the owner may do what with a table of the state."""
    query = """
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type
        FROM pg_class
        CROSS JOIN LATERAL aclexplode(relacl)
        WHERE oid = %s::regclass AND grantee <> relowner
    """
    return set(rows(connection, query, f"audius_challenges.{table}"))


# What there is afterwards


def test_the_present_version_is_not_among_the_releases_and_each_of_them_can_be_updated(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        present = value(connection, PRESENT)
        assert present not in RELEASES
        assert RELEASES
        paths = "SELECT source, path FROM pg_extension_update_paths('audius_challenges') WHERE target = %s"
        found = dict(rows(connection, paths, present))
        assert {release: found[release] for release in RELEASES} == {
            release: f"{release}--{present}" for release in RELEASES
        }


def test_an_update_leaves_the_objects_of_a_fresh_install(old: Discovery, discovery: Discovery, release: str) -> None:
    with closing(old.connect()) as updated, closing(discovery.connect()) as fresh:
        assert value(updated, VERSION) == release
        updated.execute(UPDATE)
        expected = anatomy(fresh)
        found = anatomy(updated)
        for subject, facts in expected.items():
            assert found[subject] == facts
        assert len(expected["members"]) > 40
        assert len(expected["routines"]) >= 13
        assert len(expected["comments"]) > 50


def test_the_present_version_by_name_is_the_default(bare_discovery: Discovery, discovery: Discovery) -> None:
    with closing(bare_discovery.connect()) as connection, closing(discovery.connect()) as fresh:
        create_release(bare_discovery, value(fresh, PRESENT))
        assert anatomy(connection) == anatomy(fresh)


@pytest.mark.usefixtures("roles")
def test_an_update_keeps_every_row_grant_and_setting_and_nothing_is_paid_twice(old: Discovery) -> None:
    with closing(old.connect()) as connection:
        fill(connection)
        connection.execute("DELETE FROM challenges WHERE id = 'tp'")  # retired: it does not come back
        before, states_before = everything_kept(connection), states(connection)
        assert len(before["public.user_challenges"]) > FILLED_USERS
        assert len(before["public.challenge_listen_streak"]) == 2
        readers = {(role, "SELECT") for role in ("upgrade_runner", "upgrade_reader", "upgrade_custom", "PUBLIC")}
        works = readers | {("upgrade_runner", privilege) for privilege in ("INSERT", "UPDATE")}
        assert grants(connection, "checkpoint") == works
        told = []
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))

        connection.execute(UPDATE)

        assert everything_kept(connection) == before
        assert told == []
        for challenge, state in states(connection).items():
            assert state.items() >= states_before[challenge].items()
            assert state["nothing_written"] is False
            assert (state["look"] is not None) is (challenge in ("u", "fp", "p", "v", "p1", "p2", "p3"))
        of_runs = ("pause", "last_tick", "unpaid_friday", "challenge_day", "day_backfill", "share_plan", "share_sent")
        for table in of_runs:
            assert grants(connection, table) == works
        assert grants(connection, "look") == works | {("upgrade_runner", "DELETE")}
        for table in ("set_aside", "history", "slice", "share_beat", "share_batch", "share_node"):
            assert grants(connection, table) == works | {("upgrade_runner", "DELETE")}
        with connection.transaction():  # Whoever could read the status still can.
            connection.execute("SET LOCAL ROLE upgrade_reader")
            assert len(rows(connection, "SELECT * FROM challenge_status")) == len(RUN_ORDER)
        connection.execute("SELECT * FROM sync_challenge_catalog()")
        # Those that are younger than the release are not what this is about.
        connection.execute("UPDATE challenges SET active = id = ANY(%s), starting_block = 0", [list(states_before)])
        tick(connection)
        goes_on(connection)
        with closing(old.connect("upgrade_runner")) as runner:
            connection.execute("SELECT build.person(4095, is_verified => TRUE)")
            assert tick(runner) == []
        assert completed(connection, "v")[-1] == "fff"


@pytest.mark.usefixtures("roles")
def test_a_dump_of_an_updated_database_restores_with_every_grant(old: Discovery, copy: Discovery) -> None:
    cluster = old.cluster
    with closing(old.connect()) as connection:
        fill(connection)
        connection.execute(UPDATE)
        # What people had granted before is still theirs, not the extension's: else pg_dump would leave it out.
        path = dump(cluster, old.name)
        cluster.run("pg_restore", "--exit-on-error", f"--dbname={copy.name}", cluster.inside(path))
        with closing(copy.connect()) as restored:
            assert contents(restored) == contents(connection)
            assert privileges(restored)["privileges"] == privileges(connection)["privileges"]
            assert anatomy(restored)["routines"] == anatomy(connection)["routines"]
            assert anatomy(restored)["initial privileges"] == anatomy(connection)["initial privileges"]
            goes_on(restored)


@pytest.mark.usefixtures("roles")
def test_a_dump_of_a_release_is_restored_into_that_release_and_updated(
    old: Discovery, copy: Discovery, release: str
) -> None:
    cluster = old.cluster
    with closing(old.connect()) as connection, closing(copy.connect()) as restored:
        fill(connection)
        for active in (False, True):
            connection.execute("UPDATE challenges SET active = %s WHERE id = 'e'", [active])
            assert tick(connection) == []
        path = dump(cluster, old.name)
        # In the words of dump-restore-upgrade.md.
        restored.execute(f"CREATE EXTENSION audius_challenges VERSION '{release}' CASCADE")
        cluster.run("pg_restore", "--exit-on-error", f"--dbname={copy.name}", cluster.inside(path))
        assert contents(restored) == contents(connection)
        assert privileges(restored)["privileges"] == privileges(connection)["privileges"]

        restored.execute(UPDATE)

        assert value(restored, VERSION) == value(restored, PRESENT)
        assert value(restored, "SELECT count(*) FROM audius_challenges.pause WHERE ended_at > began_at") == 1
        goes_on(restored)


def test_a_dump_of_a_release_restored_naively_lets_streaks_wait_for_a_person(old: Discovery, copy: Discovery) -> None:
    cluster = old.cluster
    with closing(old.connect()) as connection, closing(copy.connect()) as restored:
        fill(connection)
        path = dump(cluster, old.name)
        done = cluster.run("pg_restore", f"--dbname={copy.name}", cluster.inside(path), check=False)
        assert (done.returncode, done.stderr.count("error: ")) == (1, 1)
        assert 'relation "audius_challenges.checkpoint" does not exist' in done.stderr
        paid = "SELECT ctid, xmin, each::text FROM user_challenges AS each ORDER BY 3"
        before = rows(restored, paid)
        assert len(before) > FILLED_USERS

        for _ in range(2):
            with pytest.raises(errors.ExternalRoutineException) as refused:
                tick(restored)
            assert failed(refused.value.diag.message_primary) == ["e"]
        why = failing(restored)["e"]
        assert why.startswith('the state of challenge "e" is from version 1.1.0, and its pauses were not restored')
        assert rows(restored, paid) == before
        phases = """
            SELECT DISTINCT phase FROM audius_challenges.processor_state
            WHERE challenge_id IN (SELECT id FROM challenges)
        """
        assert column(restored, phases) == ["watching"]

        # Whoever knows that there was no pause says so, as the hint has it.
        (statement,) = re.findall(r"UPDATE audius_challenges\.processor_state SET .*?;", why)
        restored.execute(statement)
        assert tick(restored) == []
        goes_on(restored)


# An update that fails


def test_a_failed_update_leaves_the_old_version_whole(old: Discovery, release: str) -> None:
    with closing(old.connect()) as connection:
        fill(connection)
        connection.execute("ALTER EXTENSION audius_challenges DROP FUNCTION audius_challenges.grant_status(text)")
        before = anatomy(connection), contents(connection)

        with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
            connection.execute(UPDATE)

        assert refused.value.diag.message_primary == (
            'function audius_challenges.grant_status(text) is not a member of extension "audius_challenges"'
        )
        assert (anatomy(connection), contents(connection)) == before
        assert tick(connection) == []
        assert loaded(connection) == release
        connection.execute("ALTER EXTENSION audius_challenges ADD FUNCTION audius_challenges.grant_status(text)")
        connection.execute(UPDATE)
        goes_on(connection)


def test_an_update_waits_for_a_run_no_longer_than_lock_timeout(old: Discovery, release: str) -> None:
    with closing(old.connect()) as connection, closing(old.connect()) as running:
        running.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")
        connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(errors.LockNotAvailable):
            connection.execute(UPDATE)
        assert value(connection, VERSION) == release
        running.execute(f"SELECT pg_advisory_unlock({RUN_LOCK})")
        connection.execute(UPDATE)
        assert value(connection, VERSION) == value(connection, PRESENT)


# Others at work meanwhile

GATE = """
    CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(4711);
        RETURN new;
    END
    $$;
    CREATE TRIGGER wait_at_the_gate BEFORE INSERT ON user_challenges
    FOR EACH ROW WHEN (new.challenge_id = 'p') EXECUTE FUNCTION wait_at_the_gate();
"""


def test_a_session_with_the_old_code_goes_on_with_the_new(old: Discovery, release: str) -> None:
    with closing(old.connect()) as connection, closing(old.connect()) as session:
        present = value(connection, PRESENT)
        fill(connection)
        session.execute("SELECT * FROM reconcile_challenges()")
        session.execute("SELECT * FROM challenge_status")
        assert loaded(session) == release

        connection.execute(UPDATE)

        assert loaded(session) == release
        connection.execute("SELECT build.person(4095, is_verified => TRUE)")
        written = "SELECT challenge_id, rows_completed FROM reconcile_challenges() WHERE rows_inserted > 0"
        assert rows(session, written) == [("v", 1)]
        assert loaded(session) == present
        goes_on(session)


def test_an_update_waits_for_the_tick_under_way_and_ticks_meanwhile_leave_it_alone(
    old: Discovery, release: str
) -> None:
    with ExitStack() as sessions:
        gate, observer, updating, ticking, other = (sessions.enter_context(closing(old.connect())) for _ in range(5))
        observer.execute("SELECT build.person(n, is_verified => TRUE, name => 'n') FROM generate_series(1, 3) AS n")
        observer.execute(GATE)
        known = column(observer, "SELECT challenge_id FROM challenge_status")
        gate.execute("SELECT pg_advisory_lock(4711)")
        running = Beside(ticking, TICK)
        running.wait_until_blocked(observer)
        update = Beside(updating, f"BEGIN; {UPDATE}")
        update.wait_until_blocked(observer)
        # The update holds nothing that others need: they look, and tick, to no avail.
        assert column(other, "SELECT challenge_id FROM challenge_status") == known
        busy = ["another run of audius_challenges is under way: nothing was done"]
        assert [notice.message for notice in tick(other)] == busy

        gate.execute("SELECT pg_advisory_unlock(4711)")
        assert running.finish() is None
        assert update.finish() is None
        # The tick has ended as what it began: all of it, by the old code. Now the update is done, if not committed.
        assert loaded(ticking) == release
        assert completed(observer, "v") == ["1", "2", "3"]
        assert value(observer, VERSION) == release
        assert [notice.message for notice in tick(other)] == busy
        # Whoever looks now waits for the new version, and then sees it.
        looking = Beside(other, "CREATE TEMPORARY TABLE seen AS SELECT challenge_id FROM challenge_status")
        looking.wait_until_blocked(observer)
        updating.execute("COMMIT")
        assert looking.finish() is None
        seen = column(other, "SELECT challenge_id FROM seen")  # and those that are younger than the release
        assert [challenge for challenge in seen if challenge in known] == known
        assert value(observer, "SELECT count(*) FROM audius_challenges.processor_state") == len(known)

        observer.execute("SELECT build.person(255, is_verified => TRUE)")
        assert tick(ticking) == []
        assert loaded(ticking) == value(observer, PRESENT)
        assert completed(observer, "v") == ["1", "2", "3", "ff"]


def test_whatever_is_called_while_updating_nothing_fails_and_nothing_is_paid_twice(old: Discovery) -> None:
    errors_met: list[psycopg.Error] = []
    ticks_of_before: list[psycopg.Error] = []
    over = threading.Event()
    calls = (
        TICK,
        "SELECT * FROM reconcile_challenges()",
        "SELECT challenge_id, status FROM challenge_status",  # a prepared SELECT * would know the columns of before
        """
        SELECT pg_sleep(0.005), build.person(user_id, is_verified => TRUE)
        FROM (SELECT coalesce(max(user_id), 0) + 1 AS user_id FROM users) AS next
        """,
    )

    def call_and_call(statement: str) -> None:
        with closing(old.connect()) as session:
            while not over.is_set():
                try:
                    session.execute(statement)
                except psycopg.Error as error:
                    if 'relation "audius_challenges.checkpoint" does not exist' not in str(error):
                        errors_met.append(error)
                        return
                    ticks_of_before.append(error)

    with closing(old.connect()) as connection:
        fill(connection)
        others = [threading.Thread(target=call_and_call, args=[call]) for call in calls]
        for thread in others:
            thread.start()
        before = value(connection, "SELECT count(*) FROM user_challenges")
        paid = "SELECT count(*) > %s FROM user_challenges"
        try:
            until(lambda: value(connection, paid, before + 5), "rewards before the update")
            connection.execute(UPDATE)
            after = value(connection, "SELECT count(*) FROM user_challenges")
            until(lambda: value(connection, paid, after + 5), "rewards after the update")
        finally:
            over.set()
            for thread in others:
                thread.join()
        assert errors_met == []
        # A tick that began before the commit, and came to the lock after it, fails as the old version: one at most.
        assert len(ticks_of_before) <= 1
        assert value(connection, VERSION) == value(connection, PRESENT)
        assert tick(connection) == []
        assert shown(connection) == well(connection)
        verified = column(connection, "SELECT to_hex(user_id) FROM users WHERE is_verified ORDER BY 1")
        assert completed(connection, "v") == verified
        completions = """
            SELECT count(*), count(DISTINCT (challenge_id, specifier))
            FROM user_challenges_log
            WHERE (new ->> 'is_complete')::boolean AND challenge_id = 'v'
        """
        # The history makes one complete row unpayable: the one write of ours that is not a completion.
        assert rows(connection, completions) == [(len(verified) + 1, len(verified))]


def test_a_tick_that_slept_through_an_update_runs_the_new_code(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection, closing(discovery.connect()) as ticking:
        tick(ticking)
        sleeping = Beside(ticking, "CALL audius_challenges.tick(delay => '2 seconds')")
        asleep = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        until(lambda: rows(connection, asleep, sleeping.pid), "the tick asleep")
        replace_package(connection, "the next version", "\n__version__ = 'next'\n")
        assert sleeping.finish() is None
        assert loaded(ticking) == "next"


def test_a_call_that_began_with_the_sql_of_a_release_ends_as_the_present_version(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("SELECT build.person(255, is_verified => TRUE)")
        connection.execute(
            """
            DO LANGUAGE plpython3u $$
            plpy.execute('SELECT audius_challenges.load()')
            from audius_challenges import entry
            entry.wait(plpy, 'public', '0')
            entry.tick(plpy, 'public')
            $$
            """
        )
        assert completed(connection, "v") == ["ff"]


# And back


def way_back(release: str) -> str:
    """The transaction of upgrade.md that goes back to a release."""
    page = (REPOSITORY / "docs" / "how-to" / "upgrade.md").read_text()
    found = re.search(r"## Roll back.*?```sql\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return re.sub(r"VERSION '[\d.]+'", f"VERSION '{release}'", found[1])


@pytest.mark.usefixtures("roles")
def test_the_way_back_in_the_documentation_keeps_the_state_and_goes_on(old: Discovery, release: str) -> None:
    with closing(old.connect()) as connection:
        fill(connection)
        as_released, states_released = anatomy(connection), states(connection)
        connection.execute(UPDATE)
        connection.execute("DELETE FROM challenges WHERE id = 'tp'")  # retired: it does not come back
        assert tick(connection) == []
        before = {table: each for table, each in contents(connection).items() if "audius_challenges." not in table}
        states_before = states(connection)

        old.psql(way_back(release))

        assert value(connection, VERSION) == release
        assert contents(connection).items() >= before.items()
        assert anatomy(connection)["members"] == as_released["members"]
        for challenge, state in states(connection).items():
            if challenge not in states_released:  # it is younger than the release
                continue
            assert state.keys() == states_released[challenge].keys()
            assert state.items() <= states_before[challenge].items()
        goes_on(connection)
        assert loaded(connection) == release


@pytest.mark.parametrize("paused", ["before", "still", "since ever", "never active"])
def test_the_way_back_in_the_documentation_forgets_no_pause(old: Discovery, release: str, paused: str) -> None:
    """And a second update knows them again."""
    now = "(clock_timestamp() AT TIME ZONE 'UTC')"
    with closing(old.connect()) as connection:
        streak = "SELECT user_id, listen_streak FROM challenge_listen_streak ORDER BY user_id"
        active = "UPDATE challenges SET active = %s WHERE id = 'e'"
        connection.execute("SELECT build.person(n) FROM generate_series(1, 4) AS n")
        connection.execute(UPDATE)
        connection.execute(active, [paused != "never active"])
        connection.execute(f"SELECT build.play(1, 1, {now} - INTERVAL '20 hours')")
        if paused == "since ever":
            connection.execute("SELECT audius_challenges.start_from_now()")
        tick(connection)
        if paused in ("before", "still"):
            connection.execute(active, [False])
            tick(connection)
            connection.execute(f"SELECT build.play(2, 1, {now})")
            connection.execute(active, [paused == "still"])
            connection.execute(active, [paused == "before"])
            tick(connection)

        old.psql(way_back(release))

        tick(connection)
        if paused == "still":
            connection.execute(f"SELECT build.play(3, 1, {now})")
        if paused in ("still", "never active"):
            tick(connection)
            connection.execute(active, [True])
            tick(connection)
        for user in (1, 4):
            connection.execute(f"SELECT build.play(%s, 1, {now})", [user])
        tick(connection)
        expected = [(1, 1 if paused == "since ever" else 2), (4, 1)]
        assert rows(connection, streak) == expected
        connection.execute(UPDATE)
        tick(connection)
        connection.execute("SELECT * FROM reconcile_challenges(full_scan => TRUE)")
        assert rows(connection, streak) == expected


# The schedule

FIRST_TICK = 90  # seconds


def test_a_scheduled_database_ticks_on_through_an_update(new_cluster: NewCluster) -> None:
    cluster = new_cluster()
    require_extension(cluster)
    discovery = create_discovery(cluster, "discovery")
    discovery.psql("CREATE EXTENSION pg_cron")
    create_release(discovery, RELEASES[-1])
    with closing(discovery.connect()) as connection:
        if knows_seconds(connection):
            connection.execute("SELECT * FROM schedule_challenges(every => '1 second')")
        jobs = contents(connection)["cron.job"]
        assert len(jobs) in (2, 3)
        connection.execute(UPDATE)
        assert contents(connection)["cron.job"] == jobs
        connection.execute("SELECT build.person(255, is_verified => TRUE)")
        until(lambda: completed(connection, "v") == ["ff"], "a tick after the update", seconds=FIRST_TICK)
        assert rows(connection, "SELECT * FROM cron.job_run_details WHERE status = 'failed'") == []

        # And back: the page says that the schedule is gone then.
        discovery.psql(way_back(RELEASES[-1]))
        assert contents(connection)["cron.job"] == []
        connection.execute("SELECT * FROM schedule_challenges()")
        assert len(contents(connection)["cron.job"]) == len(jobs)
