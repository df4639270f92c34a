"""The primary dies in mid-load, and its standby is promoted: nothing is lost, and nothing is paid twice.

A history as in test_crashes. Replication is synchronous, so that what a writer was told is committed has reached the
standby. The first crash is the end of the primary; from then on everybody goes on with what was its standby.

Where there is a sweep, pg_cron ticks every second beside the ticks by hand. A transaction that is done again on the new
primary may then come after ticks that have gone far beyond its block number, and that is left to the sweep.

    AUDIUS_CHALLENGES_FAILOVERS=20 pytest tests/deployment/test_failover.py      more histories
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from devtools.cluster import Cluster
from devtools.debian_root import DebianRoot, installed_root
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from tests.sessions import completed, rows, until, value
from tests.test_crashes import (
    BURST,
    POPULATION,
    History,
    assert_final_rows_were_written_once,
    assert_rules_of_streaks_in_any_order,
    assert_same_as_first_build,
    assert_streaks_of_those_heard_in_order,
    tell_history,
)

pytestmark = pytest.mark.timeout(1800)  # the first makes roots of Debian, where there are none yet

SECONDS = (17, 18)
SEEDS = range(2, 2 + int(os.environ.get("AUDIUS_CHALLENGES_FAILOVERS", "2")))
JOB = """
    SELECT cron.schedule_in_database('tick', '1 second', 'CALL audius_challenges.tick()', 'history')
"""
TICKS = """
    SELECT count(*)
    FROM cron.job_run_details
    WHERE status = 'succeeded'
        AND database = 'history'
        AND start_time > %s
"""


class FailingOver(History):
    """A history on a primary with a standby.

    :ivar promoted_at: when the standby was promoted; None as long as the primary is alive
    """

    def __init__(self, primary: Cluster, standby: Cluster, seed: int) -> None:
        super().__init__(primary, "history", seed)
        self.standby = standby
        self.promoted_at: object = None

    def crash(self) -> None:
        """The first time the primary dies for good and the standby is promoted; then that one crashes as any server."""
        if self.promoted_at is not None:
            super().crash()
            return
        self.cluster.crash()
        # Whatever the primary had sent is applied before the promotion.
        with closing(self.standby.connect("postgres")) as session:
            assert value(session, "SELECT pg_is_in_recovery()") is True
            assert value(session, "SELECT pg_promote()") is True
            self.promoted_at = value(session, "SELECT clock_timestamp()")
            assert value(session, "SELECT pg_is_in_recovery()") is False
        self.cluster = self.standby
        self.database = Discovery(self.standby, "history")
        self.reconnect_writers()

    def come_to_rest(self) -> None:
        """As any history, without pg_cron, once that has been seen to tick on."""
        if self.has_sweep:
            self.see_pg_cron_tick()
        super().come_to_rest()

    def see_pg_cron_tick(self) -> None:
        """Assert that the job is there once and pays, then take it away."""
        with closing(self.standby.connect("postgres")) as cron, closing(self.database.connect()) as session:
            assert rows(cron, "SELECT jobname::text, schedule, database FROM cron.job") == [
                ("tick", "1 second", "history")
            ]
            session.execute("UPDATE challenges SET active = TRUE WHERE id = 'v'")
            self._last_block += 1
            person = "SELECT build.person(4095, is_verified => TRUE, blocknumber => %s)"
            session.execute(person, [self._last_block])
            until(lambda: "fff" in completed(session, "v"), "a reward by pg_cron after the promotion")
            until(lambda: value(cron, TICKS, self.promoted_at), "a tick of pg_cron after the promotion")
            cron.execute("SELECT cron.unschedule('tick')")
            running = "SELECT FROM pg_stat_activity WHERE datname = 'history' AND backend_type ~ 'cron'"
            until(lambda: not rows(cron, running), "the end of the last tick of pg_cron")


@pytest.fixture(scope="module", params=SECONDS)
def debian(request: pytest.FixtureRequest) -> DebianRoot:
    """The root of a server whose pg_cron knows seconds."""
    return installed_root(request.param)


@pytest.fixture
def primary(debian: DebianRoot) -> Iterator[Cluster]:
    """A cluster with a population, which waits for a standby at each commit as soon as there is one."""
    settings = {"autovacuum": "off", "cron.use_background_workers": "on", "cron.log_run": "on"}
    with Cluster(root=debian.path, cron_database="postgres", settings=settings) as cluster:
        require_extension(cluster)
        population = create_discovery(cluster, "history")
        population.psql(CREATE_EXTENSION, POPULATION)
        with closing(population.connect()) as session:
            session.execute(BURST, {"first": 301, "count": 700})
        yield cluster


@pytest.fixture
def standby(debian: DebianRoot, primary: Cluster) -> Iterator[Cluster]:
    """Its standby, streaming."""
    data_dir = primary.new_directory("standby")
    options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    primary.run("pg_basebackup", f"--pgdata={primary.inside(data_dir)}", *options)
    with Cluster.adopt(data_dir, root=debian.path) as cluster:
        with closing(primary.connect("postgres")) as session:
            streaming = "SELECT FROM pg_stat_replication WHERE state = 'streaming'"
            until(lambda: rows(session, streaming), "the standby streaming")
            session.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            session.execute("SELECT pg_reload_conf()")
            until(lambda: rows(session, f"{streaming} AND sync_state = 'sync'"), "the standby being waited for")
        yield cluster


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_failover_in_mid_load_the_rows_are_those_of_a_first_build(
    primary: Cluster, standby: Cluster, seed: int
) -> None:
    with closing(primary.connect("postgres")) as session:
        settings = {"slice_users": "15", "changed_users": "8", "time_budget": "0s", "lock_timeout": "30s"}
        settings["sweep_users"] = "7" if seed % 2 == 0 else "0"
        for name, setting in settings.items():
            session.execute(f"ALTER DATABASE history SET audius_challenges.{name} = '{setting}'")
        session.execute("CREATE EXTENSION pg_cron")
        history = FailingOver(primary, standby, seed)
        if history.has_sweep:
            session.execute(JOB)
    try:
        tell_history(history)
        print(*history.journal, sep="\n")
        assert history.promoted_at is not None
        assert not primary.running
    finally:
        history.close()
    assert_same_as_first_build(standby)
    with closing(history.database.connect()) as session:
        assert_streaks_of_those_heard_in_order(session)
        assert_rules_of_streaks_in_any_order(session)
        assert_final_rows_were_written_once(session)
