"""The schedule on a real clock: ticks that pg_cron starts, in both of its modes, and what schedules there can be.

Three clusters tick by themselves while the other tests run: one for each way in which pg_cron runs a job, the second
of them scheduled by a role that is no superuser, and a promoted standby.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from tests.sessions import TICK, Connection, column, completed, failed, failing, knows_seconds, rows, until, value

# How pg_cron runs a job: cron.use_background_workers, and the role that schedules.
MODES = {"libpq": ("off", "postgres"), "background worker": ("on", "reward_service")}

PERIOD = 30
FIRST_TICK = 75
"""Seconds until the first tick at the latest: jobs before pg_cron 1.5 begin with a minute, and this is slack for a
busy machine."""
SLACK = 15

JOBS = """
    SELECT jobname::text, schedule, command, database, nodename, nodeport, username, active
    FROM cron.job
    WHERE jobname LIKE 'audius_challenges %' AND database <> 'other'
    ORDER BY jobname
"""
TRIM_JOB = ("audius_challenges trim", "23 3 * * *", "SELECT audius_challenges.trim_run_details()")
TWO_JOBS = [
    ("audius_challenges tick", "* * * * *", "CALL audius_challenges.tick()"),
    ("audius_challenges tick +30s", "* * * * *", "CALL audius_challenges.tick(delay => '30 seconds')"),
    TRIM_JOB,
]
ONE_JOB = [("audius_challenges tick", "30 seconds", "CALL audius_challenges.tick()"), TRIM_JOB]


@dataclass(frozen=True)
class Ticking:
    """A cluster whose pg_cron ticks three databases: its own, one by the hint of an error, one that fails.

    role: who has scheduled the first
    refused: the error of schedule_challenges() where pg_cron is in another database
    hint_failed: what pg_cron said against the statements of that error's hint, if anything
    restored: the jobs as a restore might have left them
    jobs: the jobs in the end
    """

    discovery: Discovery
    other: Discovery
    failing: Discovery
    role: str
    refused: psycopg.Error
    hint_failed: psycopg.Error | None
    restored: list[tuple[Any, ...]]
    jobs: list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def ticking(root: Path | None) -> Iterator[dict[str, Ticking]]:
    """Both clusters, scheduled: their first ticks come within a minute."""
    with ExitStack() as stack:
        clusters = {}
        for mode, (background_workers, _) in MODES.items():
            settings = {"cron.use_background_workers": background_workers}
            clusters[mode] = stack.enter_context(Cluster(root=root, settings=settings))
        yield {mode: _schedule(clusters[mode], role) for mode, (_, role) in MODES.items()}


def _schedule(cluster: Cluster, role: str) -> Ticking:
    require_extension(cluster)
    other = create_discovery(cluster, "other")
    other.psql("SELECT build.person(255, is_verified => TRUE)")
    # pg_cron is in its database as soon as there is one, and a template must have nobody in it.
    discovery, failing = Discovery(cluster, "discovery"), Discovery(cluster, "failing")
    cluster.create_database("discovery", template="other")
    other.psql(CREATE_EXTENSION)
    cluster.create_database("failing", template="other")
    failing.psql("ALTER TABLE tracks RENAME TO tracks_away")
    discovery.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION)

    with closing(other.connect()) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute("SELECT * FROM schedule_challenges()")
    with closing(discovery.connect()) as connection:
        if role != "postgres":
            connection.execute("SELECT * FROM unschedule_challenges()")
            connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute("SELECT audius_challenges.grant_run(%s)", (role,))
        with closing(discovery.connect(role)) as scheduler:
            scheduler.execute("SELECT * FROM schedule_challenges()")
            connection.execute("UPDATE cron.job SET nodename = 'db.old.example', nodeport = 1, database = 'postgres'")
            restored = rows(connection, JOBS)
            scheduler.execute("SELECT * FROM schedule_challenges()")
        jobs = rows(connection, JOBS)
        hint_failed = None
        try:
            for statement in re.findall(r"SELECT .*?\);", refused.value.diag.message_hint or ""):
                connection.execute(statement)
        except psycopg.Error as error:
            hint_failed = error
        each = "5 seconds" if knows_seconds(connection) else "* * * * *"
        connection.execute("SELECT cron.schedule_in_database('failing', %s, %s, 'failing')", (each, TICK))
    return Ticking(discovery, other, failing, role, refused.value, hint_failed, restored, jobs)


@pytest.fixture(scope="module")
def promoted(ticking: dict[str, Ticking], root: Path | None) -> Iterator[Discovery]:
    """A standby of the first of them, promoted, with something to pay that the other does not have."""
    primary = ticking["libpq"].discovery.cluster
    data_dir = primary.new_directory("standby")
    options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    primary.run("pg_basebackup", f"--pgdata={primary.inside(data_dir)}", *options)
    # The jobs name the primary's port, as they would not where each has a machine of its own: in this mode a job
    # needs no port.
    with Cluster.adopt(data_dir, settings={"cron.use_background_workers": "on"}, root=root) as cluster:
        standby = Discovery(cluster, "discovery")
        with closing(standby.connect()) as connection:
            assert value(connection, "SELECT pg_promote()") is True
            connection.execute("SELECT build.person(43981, is_verified => TRUE)")
        yield standby


@pytest.fixture(scope="module")
def seconds_until_paid(ticking: dict[str, Ticking]) -> dict[str, float]:
    """How long after a change of the data its reward came, once the ticks are coming; for both clusters at once."""
    with ExitStack() as stack:
        connections = {mode: stack.enter_context(closing(one.discovery.connect())) for mode, one in ticking.items()}
        for mode, connection in connections.items():
            until(_paid(connection, "ff"), f"the first tick ({mode})", seconds=FIRST_TICK)
        changed = time.monotonic()
        for connection in connections.values():
            connection.execute("SELECT build.person(4095, is_verified => TRUE)")
        elapsed = {}
        for mode, connection in connections.items():
            until(_paid(connection, "fff"), f"the next tick ({mode})", seconds=PERIOD + SLACK)
            elapsed[mode] = time.monotonic() - changed
        return elapsed


def _paid(connection: Connection, specifier: str) -> Any:
    return lambda: specifier in completed(connection, "v")


@pytest.fixture
def connection(ticking: dict[str, Ticking], promoted: Discovery) -> Iterator[Connection]:
    """A session in a database with pg_cron, whose transaction is rolled back in the end: the ticks go on, there and
    on the promoted standby."""
    assert promoted.cluster.running
    with closing(ticking["libpq"].discovery.connect(autocommit=False)) as connection:
        yield connection
        connection.rollback()


# What can be scheduled; meanwhile the minute passes.


@pytest.mark.parametrize(
    ("every", "named"),
    [
        ("0 seconds", "00:00:00"),
        ("-30 seconds", "-00:00:30"),
        ("0.5 seconds", "00:00:00.5"),
        ("1.5 seconds", "00:00:01.5"),
        ("61 seconds", "00:01:01"),
        ("90 seconds", "00:01:30"),
        ("7 minutes", "00:07:00"),
        ("2 hours", "02:00:00"),
        ("1 month", "1 mon"),
    ],
)
def test_an_interval_that_pg_cron_cannot_keep_is_refused_and_nothing_changes(
    connection: Connection, every: str, named: str
) -> None:
    before = rows(connection, "SELECT ctid, xmin, job FROM cron.job ORDER BY jobid")

    with pytest.raises(errors.InvalidParameterValue) as refused, connection.transaction():
        connection.execute("SELECT * FROM schedule_challenges(%s)", (every,))

    assert refused.value.diag.message_primary == (f"audius_challenges: challenges cannot be scheduled every {named}")
    assert "whole minutes that divides 60" in (refused.value.diag.message_hint or "")
    assert rows(connection, "SELECT ctid, xmin, job FROM cron.job ORDER BY jobid") == before


def test_a_schedule_of_null_is_refused_and_nothing_changes(connection: Connection) -> None:
    before = rows(connection, "SELECT ctid, xmin, job FROM cron.job ORDER BY jobid")

    with pytest.raises(errors.NullValueNotAllowed) as refused, connection.transaction():
        connection.execute("SELECT * FROM schedule_challenges(NULL)")

    assert refused.value.diag.message_primary == "audius_challenges: every must not be null"
    assert refused.value.diag.message_hint == "Leave the argument out to get its default."
    assert rows(connection, "SELECT ctid, xmin, job FROM cron.job ORDER BY jobid") == before


@pytest.mark.parametrize(
    ("every", "schedules"),
    [
        ("1 minute", {"* * * * *", "*/1 * * * *"}),
        ("5 minutes", {"*/5 * * * *"}),
        ("1800 seconds", {"*/30 * * * *"}),
        ("1 hour", {"0 * * * *"}),
    ],
)
def test_whole_minutes_that_divide_an_hour_are_one_job(connection: Connection, every: str, schedules: set[str]) -> None:
    jobs = rows(connection, "SELECT jobname, schedule, command FROM schedule_challenges(%s)", every)

    assert [(name, command) for name, _, command in jobs] == [ONE_JOB[0][::2], TRIM_JOB[::2]]
    assert jobs[0][1] in schedules
    assert len(rows(connection, JOBS)) == 2


@pytest.mark.parametrize("every", ["1 second", "15 seconds", "59 seconds"])
def test_seconds_are_one_job_where_pg_cron_knows_them_and_refused_elsewhere(connection: Connection, every: str) -> None:
    if knows_seconds(connection):
        jobs = rows(connection, "SELECT jobname, schedule, command FROM schedule_challenges(%s)", every)
        seconds = every.removesuffix("s").replace("second", "seconds")
        assert jobs == [(ONE_JOB[0][0], seconds, ONE_JOB[0][2]), TRIM_JOB]
        return
    with pytest.raises(errors.InvalidParameterValue) as refused:
        connection.execute("SELECT * FROM schedule_challenges(%s)", (every,))
    assert refused.value.diag.message_hint == (
        "Use 30 seconds (the only interval below a minute before pg_cron 1.5),"
        " or a number of whole minutes that divides 60, such as 1, 5 or 60."
    )


def test_scheduling_twice_leaves_one_schedule(ticking: dict[str, Ticking], connection: Connection) -> None:
    expected = ONE_JOB if knows_seconds(connection) else TWO_JOBS
    cluster = ticking["libpq"].discovery.cluster
    for _ in range(2):
        returned = rows(connection, "SELECT jobname, schedule, command, database FROM schedule_challenges()")
        assert returned == [(*job, "discovery") for job in expected]
        assert rows(connection, JOBS) == [
            (*job, "discovery", cluster.inside(cluster.socket_dir), cluster.port, "postgres", True) for job in expected
        ]
    assert value(connection, "SELECT count(*) FROM schedule_challenges('5 minutes')") == 2
    assert len(rows(connection, JOBS)) == 2


@pytest.mark.parametrize("mode", MODES)
def test_scheduling_points_a_restored_job_at_this_server_and_database(ticking: dict[str, Ticking], mode: str) -> None:
    one = ticking[mode]
    assert {job[3:6] for job in one.restored} == {("postgres", "db.old.example", 1)}
    cluster = one.discovery.cluster
    here = ("discovery", cluster.inside(cluster.socket_dir), cluster.port)
    assert [job[3:6] for job in one.jobs] == [here] * len(one.restored)
    assert [job[:3] for job in one.jobs] == [job[:3] for job in one.restored]
    assert {job[6] for job in one.jobs} == {one.role}
    # That the ticks come, below, is of these jobs.


def test_unscheduling_removes_our_jobs_and_no_others(connection: Connection) -> None:
    expected = ONE_JOB if knows_seconds(connection) else TWO_JOBS
    connection.execute("SELECT cron.schedule('of somebody else', '* * * * *', 'SELECT 1')")

    removed = rows(connection, "SELECT jobname, schedule, command, database FROM unschedule_challenges()")

    assert removed == [(*job, "discovery") for job in expected]
    left = set(column(connection, "SELECT jobname::text FROM cron.job WHERE database <> 'other'"))
    assert left == {"failing", "of somebody else"}
    assert rows(connection, "SELECT * FROM unschedule_challenges()") == []


def test_trimming_deletes_what_our_jobs_left_a_week_ago_and_nothing_else(connection: Connection) -> None:
    connection.execute("DELETE FROM cron.job_run_details")
    connection.execute(
        """
        INSERT INTO cron.job_run_details (runid, jobid, command, status, start_time, end_time)
        SELECT runid, 1, command, status, now() - began, now() - ended
        FROM (
            VALUES
                (1001, 'CALL audius_challenges.tick()', 'succeeded', INTERVAL '8 days', INTERVAL '8 days'),
                (1002, 'CALL audius_challenges.tick(delay => ''30 seconds'')', 'failed', '8 days', '8 days'),
                (1003, 'SELECT audius_challenges.trim_run_details()', 'succeeded', '8 days', '8 days'),
                (1004, 'SELECT 1', 'succeeded', '8 days', '8 days'),
                -- as pg_cron records that it found no connection, and that the server was restarted
                (-1, 'CALL audius_challenges.tick()', 'failed', NULL, NULL),
                (1006, 'CALL audius_challenges.tick()', 'failed', '8 days', NULL),
                (1007, 'CALL audius_challenges_tick()', 'succeeded', '8 days', '8 days'),
                (1008, 'CALL audius_challenges.tick()', 'succeeded', '7 days 1 minute', '7 days 1 minute'),
                (1009, 'CALL audius_challenges.help()', 'failed', INTERVAL '8 days', INTERVAL '8 days'),
                (50009, 'CALL audius_challenges.tick()', 'succeeded', '6 days 23 hours', '6 days 23 hours'),
                (50010, 'SELECT audius_challenges.trim_run_details()', 'succeeded', '1 minute', '1 minute'),
                (50011, 'CALL audius_challenges.tick()', 'failed', NULL, NULL),
                (50012, 'CALL audius_challenges.tick()', 'failed', '1 minute', NULL),
                (50013, 'CALL audius_challenges.tick()', 'running', '1 minute', NULL),
                (50014, 'CALL audius_challenges.tick()', 'starting', NULL, NULL)
        ) AS run (runid, command, status, began, ended)
        """
    )

    trimmed = value(connection, "SELECT audius_challenges.trim_run_details()")

    left = column(connection, "SELECT runid FROM cron.job_run_details WHERE runid NOT BETWEEN 0 AND 1000 ORDER BY 1")
    assert left == [1004, 1007, 50009, 50010, 50011, 50012, 50013, 50014]
    assert trimmed == 7


# Where pg_cron is not


def test_scheduling_in_another_database_than_pg_crons_says_what_to_run_there(ticking: dict[str, Ticking]) -> None:
    refused = ticking["libpq"].refused
    assert isinstance(refused, errors.ObjectNotInPrerequisiteState)
    assert refused.diag.message_primary == "audius_challenges: pg_cron is not installed in this database"
    hint = refused.diag.message_hint or ""
    there = "The database of pg_cron is discovery. Run there: CREATE EXTENSION IF NOT EXISTS pg_cron; SELECT cron."
    assert hint.startswith(there)
    assert "'CALL audius_challenges.tick()', 'other'" in hint


@pytest.mark.parametrize("function", ["unschedule_challenges()", "audius_challenges.trim_run_details()"])
def test_what_needs_pg_cron_says_so_where_it_is_not(discovery: Discovery, function: str) -> None:
    with (
        closing(discovery.connect()) as connection,
        pytest.raises(errors.ObjectNotInPrerequisiteState) as refused,
    ):
        connection.execute(f"SELECT {function}")
    assert refused.value.diag.message_primary == "audius_challenges: pg_cron is not installed in this database"


def test_scheduling_before_create_extension_pg_cron_says_so(cluster: Cluster) -> None:
    with closing(cluster.connect(cluster.cron_database)) as connection:
        connection.execute(CREATE_EXTENSION)
        try:
            with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
                connection.execute("SELECT * FROM schedule_challenges()")
        finally:
            connection.execute("DROP EXTENSION audius_challenges, plpython3u")
    assert refused.value.diag.message_primary == "audius_challenges: pg_cron is not installed in this database"
    assert refused.value.diag.message_hint == "CREATE EXTENSION pg_cron; SELECT * FROM schedule_challenges();"


def test_scheduling_without_pg_cron_in_the_server_says_how_to_get_it(cluster: Cluster, root: Path | None) -> None:
    data_dir = cluster.new_directory("without_pg_cron")
    cluster.run("initdb", f"--pgdata={cluster.inside(data_dir)}", "--username=postgres", "--auth=trust", "--no-sync")
    with Cluster.adopt(data_dir, settings={"fsync": "off"}, root=root) as without:
        without.psql("postgres", CREATE_EXTENSION)
        with (
            closing(without.connect("postgres")) as connection,
            pytest.raises(errors.ObjectNotInPrerequisiteState) as refused,
        ):
            connection.execute("SELECT * FROM schedule_challenges()")
    assert refused.value.diag.message_primary == "audius_challenges: pg_cron is not installed in this database"
    assert refused.value.diag.message_hint == (
        "Add pg_cron to shared_preload_libraries, restart the server, then CREATE EXTENSION pg_cron;"
    )


# Ticks


@pytest.mark.parametrize("mode", MODES)
def test_a_change_is_paid_by_the_next_tick(
    ticking: dict[str, Ticking], seconds_until_paid: dict[str, float], mode: str
) -> None:
    assert seconds_until_paid[mode] <= PERIOD + SLACK
    with closing(ticking[mode].discovery.connect()) as connection:
        assert completed(connection, "v") == ["ff", "fff"]
        ended = """
            SELECT DISTINCT status, username::text
            FROM cron.job_run_details
            WHERE database = 'discovery' AND status NOT IN ('starting', 'running')
        """
        runs = until(lambda: rows(connection, ended), "the end of the first tick")
        assert runs == [("succeeded", ticking[mode].role)]


def test_before_seconds_two_jobs_tick_every_half_minute(
    ticking: dict[str, Ticking], seconds_until_paid: dict[str, float]
) -> None:
    with closing(ticking["libpq"].discovery.connect()) as connection:
        if knows_seconds(connection):
            pytest.skip("this pg_cron knows seconds: one job ticks every half minute")
        assert [job[:3] for job in ticking["libpq"].jobs] == TWO_JOBS
        assert seconds_until_paid["libpq"] <= PERIOD + SLACK
        begun = column(
            connection, "SELECT DISTINCT command FROM cron.job_run_details WHERE database = 'discovery' ORDER BY 1"
        )
        assert begun == [TWO_JOBS[0][2], TWO_JOBS[1][2]]


def test_with_seconds_one_job_ticks_as_often_as_it_says(
    ticking: dict[str, Ticking], seconds_until_paid: dict[str, float]
) -> None:
    assert set(seconds_until_paid) == set(MODES)
    with closing(ticking["libpq"].discovery.connect()) as connection:
        if not knows_seconds(connection):
            pytest.skip("pg_cron before 1.5 knows no seconds: pytest --major 17 has a later one")
        assert [job[:3] for job in ticking["libpq"].jobs] == ONE_JOB
        connection.execute("SELECT * FROM schedule_challenges('2 seconds')")
        begun = "SELECT count(*) FROM cron.job_run_details WHERE database = 'discovery' AND status = 'succeeded'"
        before = value(connection, begun)
        until(lambda: value(connection, begun) >= before + 3, "three ticks, one every 2 s", seconds=20)
        connection.execute("SELECT * FROM schedule_challenges()")


def test_the_hint_for_another_database_really_ticks_it(ticking: dict[str, Ticking]) -> None:
    one = ticking["libpq"]
    assert one.hint_failed is None, one.refused.diag.message_hint
    with closing(one.discovery.connect()) as connection:
        assert len(rows(connection, JOBS)) == len(one.jobs)  # without harm to the schedule of pg_cron's own database
        assert rows(connection, "SELECT * FROM cron.job WHERE database = 'other'") != []
    with closing(one.other.connect()) as connection:
        until(_paid(connection, "ff"), "a tick in another database", seconds=FIRST_TICK)


@pytest.mark.parametrize("mode", MODES)
def test_pg_cron_records_which_processors_failed_and_what_the_others_did_stays(
    ticking: dict[str, Ticking], mode: str
) -> None:
    one = ticking[mode]
    with closing(one.discovery.connect()) as cron, closing(one.failing.connect()) as connection:
        ended = "SELECT return_message FROM cron.job_run_details WHERE database = 'failing' AND status = 'failed'"
        messages = until(lambda: column(cron, ended), "the failing tick", seconds=FIRST_TICK)
        assert failed(messages[0]) == list(failing(connection))
        assert {"u", "p1", "p2", "p3", "tt", "tut"} <= set(failing(connection))
        reason = 'table "public.tracks" does not exist'
        assert [error for error in failing(connection).values() if not error.startswith(reason)] == []
        succeeded = "SELECT count(*) FROM cron.job_run_details WHERE database = 'failing' AND status = 'succeeded'"
        assert value(cron, succeeded) == 0
        assert completed(connection, "v") == ["ff"]


def test_pg_cron_goes_on_ticking_on_a_promoted_standby(promoted: Discovery) -> None:
    with closing(promoted.connect()) as connection:
        until(_paid(connection, "abcd"), "a tick on the promoted standby", seconds=FIRST_TICK)
