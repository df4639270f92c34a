"""No tick that did not get through is silent: what ended it is remembered and shown, and others have their turn."""

import re
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import errors

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery
from tests.sessions import (
    RUN_ORDER,
    TICK,
    Beside,
    Connection,
    NewCluster,
    Notice,
    column,
    completed,
    failing,
    let_p_wait,
    notices,
    rows,
    shown,
    tick,
    until,
    value,
    well,
)

STATUS = "SELECT DISTINCT status FROM challenge_status WHERE status NOT IN ('inactive', 'absent')"
PROBLEM = "SELECT DISTINCT tick_problem FROM challenge_status"
LAUNCHER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher' AND datname IS NOT NULL"
LONG_AGO = "UPDATE audius_challenges.last_tick SET ended_at = ended_at - INTERVAL '10 minutes'"


@pytest.fixture
def connection(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh discovery database whose pg_cron is in another one; the first build is done."""
    with closing(discovery.connect()) as connection:
        assert tick(connection) == []
        yield connection


def hinted(problem: str, pattern: str) -> str:
    """The statement that the hint of a problem names."""
    found = re.search(pattern, problem.split(" HINT: ")[1])
    assert found, problem
    return found[0]


# What is cut off

ENDINGS = {
    "cancel": "SELECT pg_cancel_backend({pid})",
    "statement timeout": None,
    "terminate": "SELECT pg_terminate_backend({pid})",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_cut_off_is_shown_and_those_behind_it_have_their_turn(
    connection: Connection, discovery: Discovery, ending: str
) -> None:
    connection.execute("SELECT build.person(255, name => 'n', is_verified => TRUE)")
    let_p_wait(connection)
    with closing(discovery.connect(autocommit=False)) as blocker:
        blocker.execute("SELECT pg_advisory_xact_lock(7)")

        def cut_off() -> None:
            with closing(discovery.connect()) as session:
                if ending == "statement timeout":
                    session.execute("SET statement_timeout = '1s'")
                run = Beside(session, TICK)
                run.wait_until_blocked(connection)
                if statement := ENDINGS[ending]:
                    connection.execute(statement.format(pid=run.pid))
                assert run.finish() is not None
                until(lambda: not rows(connection, "SELECT FROM pg_locks WHERE pid = %s", run.pid), "its end")

        cut_off()
        assert completed(connection, "v") == []  # v comes after p
        cut_off()
        assert completed(connection, "v") == ["ff"]
        assert list(failing(connection)) == ["p"]
        assert failing(connection)["p"].startswith("cut off")
        cut_off()
        after_p = [challenge for challenge, (status, _) in shown(connection).items() if status == "failing"]
        assert after_p == ["p"]
        order = column(connection, "SELECT challenge_id FROM audius_challenges.processor_state ORDER BY last_run")
        assert order[-1] == "p" or ending == "terminate"
        blocker.rollback()

    assert tick(connection) == []
    assert shown(connection) == well(connection)
    assert value(connection, "SELECT last_error FROM challenge_status WHERE challenge_id = 'p'").startswith("cut off")
    assert value(connection, "SELECT count(cut_off) FROM audius_challenges.processor_state") == 0


def test_what_was_cut_off_comes_last_the_latest_of_them_at_last(connection: Connection) -> None:
    connection.execute("UPDATE audius_challenges.processor_state SET cut_off = now() WHERE challenge_id = 'u'")
    connection.execute(
        "UPDATE audius_challenges.processor_state SET cut_off = now() - INTERVAL '1 day' WHERE challenge_id = 'v'"
    )
    order = "SELECT challenge_id FROM audius_challenges.processor_state ORDER BY last_run"

    assert tick(connection) == []
    assert column(connection, order) == [name for name in RUN_ORDER if name not in ("u", "v")] + ["v", "u"]
    assert tick(connection) == []
    assert column(connection, order) == list(RUN_ORDER)


def test_the_first_build_that_was_cut_off_is_known_in_later_rounds_too(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("SELECT build.person(n, name => 'n') FROM generate_series(1, 90) AS n")
        let_p_wait(connection, "new.user_id = 50")
        with closing(discovery.connect(autocommit=False)) as blocker, closing(discovery.connect()) as session:
            blocker.execute("SELECT pg_advisory_xact_lock(7)")
            session.execute("SET audius_challenges.slice_users = 20")
            run = Beside(session, TICK)
            run.wait_until_blocked(connection)
            assert value(connection, "SELECT sweep_position FROM challenge_status WHERE challenge_id = 'p'") == 40
            connection.execute("SELECT pg_terminate_backend(%s)", (run.pid,))
            run.finish()
            until(lambda: not rows(connection, "SELECT FROM pg_locks WHERE pid = %s", run.pid), "its end")
        assert failing(connection) == {}
        assert tick(connection) == []
        told = dict(rows(connection, "SELECT challenge_id, last_error FROM challenge_status WHERE last_error <> ''"))
        assert list(told) == ["p"]
        assert told["p"].startswith("cut off: the tick that began at ")
        assert shown(connection) == well(connection)


def test_a_killed_backend_is_known_after_the_crash_restart(new_cluster: NewCluster) -> None:
    cluster = new_cluster(cron_database="postgres")
    discovery = create_discovery(cluster, "discovery")
    discovery.psql(CREATE_EXTENSION, TICK, "SELECT build.person(255, name => 'n')")
    blocker = discovery.connect(autocommit=False)
    with closing(discovery.connect()) as observer:
        let_p_wait(observer)
        blocker.execute("SELECT pg_advisory_xact_lock(7)")
        run = Beside(discovery.connect(), TICK)
        run.wait_until_blocked(observer)
    cluster.kill(run.pid)
    assert run.finish() is not None
    blocker.close()
    with closing(discovery.connect()) as connection:
        assert tick(connection) == []
        told = dict(rows(connection, "SELECT challenge_id, last_error FROM challenge_status WHERE last_error <> ''"))
        assert list(told) == ["p"]
        assert "pg_terminate_backend" in told["p"]


# statement_timeout


@pytest.mark.parametrize(
    ("timeout", "delay", "warns"),
    [("25s", "0", True), ("26s", "0", False), ("26s", "1 second", True), ("0", "1 second", False)],
)
def test_a_statement_timeout_that_may_cut_a_tick_off_is_warned_of(
    connection: Connection, timeout: str, delay: str, warns: bool
) -> None:
    connection.execute(f"SET statement_timeout = '{timeout}'")
    with notices(connection) as heard:
        connection.execute(f"CALL audius_challenges.tick('{delay}')")
    warning = Notice(
        f"statement_timeout is {timeout}, and may cut this tick off", "ALTER ROLE postgres SET statement_timeout = 0;"
    )
    assert heard == [warning] * warns


def test_a_tick_that_is_cut_off_while_it_sleeps_is_told_of(connection: Connection) -> None:
    connection.execute("SET statement_timeout = '200ms'")
    with pytest.raises(errors.QueryCanceled):
        connection.execute("CALL audius_challenges.tick('1 minute')")
    connection.execute("RESET statement_timeout")
    assert column(connection, STATUS) == ["stopped"]
    problem = value(connection, PROBLEM)
    assert problem.startswith("a tick failed before its first challenge: canceling statement")
    assert problem.endswith("ALTER ROLE postgres SET statement_timeout = 0;")
    assert tick(connection) == []
    assert shown(connection) == well(connection)


# Ticks that fail before their first challenge


def test_a_tick_that_does_not_come_to_its_first_challenge_is_told_of(connection: Connection) -> None:
    connection.execute("SET audius_challenges.max_completions = 'many'")
    with pytest.raises(errors.InvalidParameterValue):
        tick(connection)
    connection.execute("RESET audius_challenges.max_completions")
    assert column(connection, STATUS) == ["stopped"]
    assert 'invalid value for setting "audius_challenges.max_completions"' in value(connection, PROBLEM)
    assert tick(connection) == []
    assert shown(connection) == well(connection)


@pytest.mark.parametrize(
    ("lost", "word"),
    [
        ("EXECUTE ON FUNCTION pg_control_system() FROM public", "stopped"),
        ("SELECT ON audius_challenges.look FROM ticking_role", "stopped"),
        ("UPDATE ON audius_challenges.last_tick FROM ticking_role", "late"),
        ("USAGE ON SCHEMA audius_challenges FROM ticking_role", "late"),
    ],
)
def test_a_role_that_has_lost_a_privilege_of_ours_is_told_of(
    connection: Connection, discovery: Discovery, lost: str, word: str
) -> None:
    connection.execute("CREATE ROLE ticking_role LOGIN")
    try:
        connection.execute("SELECT audius_challenges.grant_run('ticking_role')")
        connection.execute("GRANT INSERT ON user_challenges_log TO ticking_role")
        with closing(discovery.connect("ticking_role")) as session:
            assert tick(session) == []
            assert shown(connection) == well(connection)
            connection.execute(f"REVOKE {lost}")
            with pytest.raises(psycopg.Error, match="permission denied"):
                tick(session)
        if word == "late":  # Nothing could be remembered, so it takes until the next one is overdue.
            connection.execute(LONG_AGO)
        assert column(connection, STATUS) == [word]
    finally:
        connection.execute("DROP OWNED BY ticking_role")
        connection.execute("DROP ROLE ticking_role")


# Ticks that do nothing


def test_ticks_that_are_switched_off_do_not_pass_for_ok(connection: Connection) -> None:
    connection.execute("SET audius_challenges.enabled = off")
    assert tick(connection) != []
    connection.execute("RESET audius_challenges.enabled")
    assert column(connection, STATUS) == ["stopped"]
    assert value(connection, PROBLEM) == "audius_challenges.enabled is off"
    assert tick(connection) == []
    assert shown(connection) == well(connection)


def test_what_looks_like_a_restore_is_a_failure_after_an_hour(connection: Connection) -> None:
    connection.execute("ALTER TABLE user_challenges DROP CONSTRAINT user_challenges_pkey")
    assert len(tick(connection)) == 1
    since = "SELECT restoring_since FROM audius_challenges.last_tick"
    began = value(connection, since)
    assert len(tick(connection)) == 1
    assert value(connection, since) == began
    assert column(connection, STATUS) == ["stopped"]
    assert "create the primary key of user_challenges" in value(connection, PROBLEM)

    connection.execute("UPDATE audius_challenges.last_tick SET restoring_since = restoring_since - INTERVAL '1 hour'")
    for _ in range(2):
        with pytest.raises(errors.ObjectNotInPrerequisiteState) as raised:
            tick(connection)
        message = raised.value.diag.message_primary or ""
        assert message.startswith("audius_challenges: no primary key on user_challenges yet: ticks have done nothing")
        assert "create the primary key" in (raised.value.diag.message_hint or "")
    assert column(connection, STATUS) == ["stopped"]
    assert value(connection, "SELECT NOT is_running FROM audius_challenges.last_tick") is True

    connection.execute("ALTER TABLE user_challenges ADD PRIMARY KEY (challenge_id, specifier)")
    assert tick(connection) == []
    assert shown(connection) == well(connection)
    assert value(connection, since) is None


def test_a_lock_that_is_held_makes_the_next_tick_late_and_the_hint_ends_it(
    connection: Connection, discovery: Discovery
) -> None:
    with closing(discovery.connect(autocommit=False)) as holder:
        holder.execute("SELECT * FROM reconcile_challenges()")
        connection.execute(LONG_AGO)
        assert len(tick(connection)) == 1
        assert column(connection, STATUS) == ["late"]
        problem = value(connection, PROBLEM)
        assert f"process {holder.info.backend_pid} holds the lock of a run" in problem
        connection.execute(hinted(problem, r"SELECT pg_terminate_backend\(\d+\);").encode())
        until(lambda: not tick(connection), "the end of the lock")
    assert shown(connection) == well(connection)


# Where nothing ticks


def test_a_database_that_nothing_has_ever_ticked_is_stopped(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("SELECT * FROM reconcile_challenges()")
        assert column(connection, STATUS) == ["stopped"]
        problem = value(connection, PROBLEM)
        told = "no tick has come yet, and no schedule is known here HINT: The database of pg_cron is postgres."
        assert problem.startswith(told)
        connection.execute(TICK)
        assert shown(connection) == well(connection)
        assert value(connection, PROBLEM) is None
        connection.execute(LONG_AGO)
        assert column(connection, STATUS) == ["late"]


def test_whoever_looks_sees_that_the_launcher_is_gone(new_cluster: NewCluster) -> None:
    cluster = new_cluster(settings={"cron.use_background_workers": "on"})
    discovery = create_discovery(cluster, "discovery")
    discovery.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION, TICK)
    discovery.psql("CREATE ROLE watcher LOGIN", "SELECT audius_challenges.grant_status('watcher')")
    with closing(discovery.connect()) as admin:
        until(lambda: rows(admin, LAUNCHER), "the launcher")
        assert shown(admin) == well(admin)
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'discovery' AND pid <> pg_backend_pid()"
    )
    discovery.psql(ended)
    for user in ("postgres", "watcher"):
        with closing(discovery.connect(user)) as connection:
            until(lambda: column(connection, STATUS) == ["stopped"], "the end of the launcher")
            assert "pg_cron's launcher does not run" in value(connection, PROBLEM)

    cluster.restart()  # as the hint says
    with closing(discovery.connect()) as admin, closing(discovery.connect("watcher")) as watcher:
        until(lambda: rows(admin, LAUNCHER), "the launcher")
        assert tick(admin) == []
        for connection in (admin, watcher):
            assert shown(connection) == well(connection)


def test_a_server_without_pg_cron_is_judged_by_its_ticks(cluster: Cluster) -> None:
    data_dir = cluster.new_directory("ticked_by_something_else")
    cluster.run("initdb", f"--pgdata={cluster.inside(data_dir)}", "--username=postgres", "--auth=trust", "--no-sync")
    with Cluster.adopt(data_dir, settings={"fsync": "off"}, root=cluster.root) as without:
        elsewhere = create_discovery(without, "discovery")
        elsewhere.psql(CREATE_EXTENSION)
        with closing(elsewhere.connect()) as connection:
            assert "no schedule is known here" in value(connection, PROBLEM)
            assert tick(connection) == []
            assert shown(connection) == well(connection)
            connection.execute(LONG_AGO)
            assert column(connection, STATUS) == ["late"]


def test_a_job_that_people_wrote_in_their_own_way_is_a_schedule(cron_cluster: Discovery) -> None:
    with closing(cron_cluster.connect()) as connection:
        until(lambda: rows(connection, LAUNCHER), "the launcher")
        assert tick(connection) == []
        connection.execute("SELECT unschedule_challenges()")
        assert value(connection, STATUS) == "stopped"
        connection.execute("SELECT cron.schedule('ours', '* * * * *', ' call audius_challenges.tick ();')")
        assert value(connection, PROBLEM) is None
        connection.execute("UPDATE cron.job SET active = FALSE")
        assert value(connection, PROBLEM).startswith("the jobs are switched off")


@pytest.mark.parametrize("setting", ["standard_conforming_strings = off", "escape_string_warning = off"])
def test_no_way_of_reading_strings_breaks_the_view_or_what_the_daily_job_calls(
    cron_cluster: Discovery, setting: str
) -> None:
    with closing(cron_cluster.connect()) as connection:
        until(lambda: rows(connection, LAUNCHER), "the launcher")
        assert tick(connection) == []
        connection.execute("SELECT schedule_challenges()")
        facts = "SELECT active_jobs, inactive_jobs, period FROM audius_challenges.schedule_facts()"
        before = rows(connection, facts)
        with closing(cron_cluster.connect()) as odd:
            odd.execute(f"SET {setting}")
            assert rows(odd, facts) == before
            assert value(odd, STATUS) == "ok"
            assert value(odd, "SELECT audius_challenges.trim_run_details()") == 0
            odd.execute("SET audius_challenges.trigger_schemas = 'cron , public'")
            odd.execute("CREATE ROLE odd_reader")
            try:
                odd.execute("SELECT audius_challenges.grant_run('odd_reader')")
            finally:
                odd.execute("DROP OWNED BY odd_reader; DROP ROLE odd_reader")


def test_a_schedule_gives_the_first_tick_its_time(new_cluster: NewCluster) -> None:
    cluster = new_cluster(settings={"cron.use_background_workers": "on", "cron.max_running_jobs": "0"})
    discovery = create_discovery(cluster, "discovery")
    discovery.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION)
    with closing(discovery.connect()) as connection:
        until(lambda: rows(connection, LAUNCHER), "the launcher")
        assert column(connection, STATUS) == ["never run"]
        assert tick(connection) == []
        connection.execute("SELECT * FROM unschedule_challenges()")
        assert column(connection, STATUS) == ["stopped"]
        connection.execute(LONG_AGO)
        connection.execute(hinted(value(connection, PROBLEM), r"SELECT \* FROM schedule_challenges\(\);").encode())
        assert shown(connection) == well(connection)
        connection.execute("UPDATE audius_challenges.last_tick SET scheduled_at = now() - INTERVAL '86 seconds'")
        assert column(connection, STATUS) == ["late"]


def test_looking_takes_no_table_for_pg_crons_that_is_not(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA cron")
    connection.execute("CREATE VIEW cron.job AS SELECT 1 / 0 AS active, 1 / 0 AS jobname, 1 / 0 AS command")
    started = time.monotonic()
    assert shown(connection) == well(connection)
    assert time.monotonic() - started < 5


# What it costs


def test_a_tick_loads_nothing_that_it_can_do_without(connection: Connection) -> None:
    """Each scheduled tick has a session of its own."""
    connection.execute(
        """
        DO LANGUAGE plpython3u $$
        import sys
        loaded = {'audius_challenges.operation.run', 'typing', 'json', 'difflib'} & sys.modules.keys()
        assert loaded == {'audius_challenges.operation.run'}, loaded
        $$
        """
    )
