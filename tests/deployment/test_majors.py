"""From each PostgreSQL to the next, by dump and restore and by pg_upgrade: all is there, goes on, and nothing is paid
twice.

Both servers are in one Debian root, as on a machine that has come from Debian 12 to 13, or on to what follows.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audius_challenges.challenges import ANY_WEEK
from devtools.cluster import Cluster
from devtools.debian_root import EARLIER, DebianRoot, inside_root, installed_root
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from tests.anatomy import anatomy
from tests.histories import FILLED_USERS, contents, dump, fill, goes_on
from tests.sessions import RUN_LOCK, RUN_ORDER, Connection, column, completed, knows_seconds, rows, until, value

pytestmark = pytest.mark.timeout(1800)  # the first makes roots of Debian, where there are none yet

FIRST_TICK = 90  # seconds; the old pg_cron knows no schedule below a minute
# A worker of the server itself, whatever host and port a job names.
TICKS_HERE = {"cron.use_background_workers": "on"}
# Where nobody answers: held still, since a job names the host that was here when it was scheduled.
TICKS_NOWHERE = {"cron.use_background_workers": "off"}
# 15.20 and 17.12 mark columns with an option of their own. 18.6 is older and does not know it: by it pg_upgrade fails
# in any database (unrecognized parameter "pg_attver"), and Debian's testing has no newer one.
FORGET_MARKS = "UPDATE pg_attribute SET attoptions = NULL WHERE attrelid >= 16384 AND attoptions::text ~ 'pg_attver='"


@pytest.fixture(scope="module", params=EARLIER, ids=lambda new: f"{EARLIER[new]} to {new}")
def both(request: pytest.FixtureRequest) -> DebianRoot:
    """The root with both servers."""
    return installed_root(request.param)


@pytest.fixture(scope="module")
def earlier(both: DebianRoot) -> Iterator[Discovery]:
    """A database with a history on the old server, ticking by itself."""
    with Cluster(both.bin_dir(EARLIER[both.major]), root=both.path, settings=TICKS_HERE) as cluster:
        require_extension(cluster)
        assert cluster.major == EARLIER[both.major]
        discovery = create_discovery(cluster, "discovery")
        discovery.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION)
        with closing(discovery.connect()) as connection:
            connection.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")
            fill(connection)
            assert knows_seconds(connection) == (EARLIER[both.major] > 15)
            connection.execute(f"SELECT pg_advisory_unlock({RUN_LOCK})")
        yield discovery


def _as_new(cluster: Cluster) -> dict[str, list[str]]:
    """What the catalogs say of the extension where it was created on this server."""
    cluster.create_database("fresh")
    cluster.psql("fresh", CREATE_EXTENSION)
    with closing(cluster.connect("fresh")) as connection:
        return anatomy(connection)


def _ticks_once(connection: Connection) -> None:
    """Asserts that after an update of pg_cron the job is there once, and ticks."""
    since = value(connection, "SELECT clock_timestamp()")
    connection.execute("ALTER EXTENSION pg_cron UPDATE")
    connection.execute("SELECT * FROM schedule_challenges(every => '1 second')")
    jobs = "SELECT jobname::text, schedule, database FROM cron.job ORDER BY jobname"
    assert rows(connection, jobs) == [
        ("audius_challenges tick", "1 seconds", "discovery"),
        ("audius_challenges trim", "23 3 * * *", "discovery"),
    ]
    connection.execute("SELECT build.person(4095, is_verified => TRUE)")
    until(lambda: "fff" in completed(connection, "v"), "a tick of the new server", seconds=FIRST_TICK)
    failed = "SELECT return_message FROM cron.job_run_details WHERE status = 'failed' AND start_time > %s"
    assert column(connection, failed, since) == []


# Dump and restore


def test_a_dump_restores_into_another_major_with_every_row_and_goes_on_there(
    earlier: Discovery, both: DebianRoot
) -> None:
    with closing(earlier.connect()) as before:
        before.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")  # its ticks leave it alone, and those that come over
        path = dump(earlier.cluster, earlier.name)
        expected = contents(before)
        ticks = 1 if knows_seconds(before) else 2
        with Cluster(root=both.path, settings=TICKS_NOWHERE) as cluster:
            assert cluster.major == both.major
            cluster.create_database("discovery")
            # The dump would put it into schema public, where the old pg_cron was happy to be; the new one is not.
            cluster.psql("discovery", "CREATE EXTENSION pg_cron")
            # By the new server's program, as PostgreSQL has it.
            cluster.run("pg_restore", "--exit-on-error", "--dbname=discovery", earlier.cluster.inside(path))
            discovery = Discovery(cluster, "discovery")
            with closing(discovery.connect()) as after:
                assert contents(after) == expected
                assert len(expected["user_challenges"]) > FILLED_USERS
                assert len(expected["cron.job"]) == ticks + 1
                assert anatomy(after) == _as_new(cluster)
                goes_on(after)
            cluster.psql("postgres", "ALTER SYSTEM SET cron.use_background_workers = on")
            cluster.restart()
            with closing(discovery.connect()) as after:
                _ticks_once(after)


# pg_upgrade


def _compiled_anew(connection: Connection) -> dict[str, list[str]]:
    """The anatomy after what the page does, since the new server has another Python."""
    connection.execute("SELECT audius_challenges.compile()")
    return anatomy(connection)


class Upgrade:
    """pg_upgrade of a cluster into a new one."""

    def __init__(self, both: DebianRoot, old: Cluster, new: Cluster) -> None:
        self.both, self.old, self.new = both, old, new
        self.arguments = [
            f"--old-bindir={both.bin_dir(EARLIER[both.major])}",
            f"--new-bindir={both.bin_dir(both.major)}",
            f"--old-datadir={old.inside(old.data_dir)}",
            f"--new-datadir={new.inside(new.data_dir)}",
            f"--socketdir={new.inside(new.socket_dir)}",
            f"--old-port={old.port}",
            f"--new-port={new.port}",
            "--username=postgres",
        ]

    def check(self) -> tuple[int, str]:
        """What --check says, with its exit code."""
        done = self.new.run("pg_upgrade", *self.arguments, "--check", check=False)
        return done.returncode, done.stdout + done.stderr

    def give_up_checksums(self) -> None:
        """Takes data checksums from the new cluster, which has them from 18 on unless it was told otherwise; asserts
        that the old one, which has none, was refused because of them."""
        code, said = self.check()
        assert code == 1
        assert "old cluster does not use data checksums but the new one does" in said
        self.new.run("pg_checksums", "--disable", f"--pgdata={self.new.inside(self.new.data_dir)}")

    def check_without(self, library: str) -> tuple[int, str]:
        """What --check says where the new server lacks a library."""
        unreadable = self.new.directory / "nothing"
        unreadable.touch()
        here = ["runuser", "-u", "postgres", "--", "env", f"--chdir={self.new.inside(self.new.directory)}"]
        command = [*here, f"{self.both.bin_dir(self.both.major)}/pg_upgrade", *self.arguments, "--check"]
        hidden = {unreadable: f"/usr/lib/postgresql/{self.both.major}/lib/{library}.so"}
        inside = inside_root(self.both.path, command, binds=hidden)
        done = subprocess.run(inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr + self._complaints()

    def run(self) -> None:
        """Upgrades; raises ClusterError if that fails."""
        self.new.run("pg_upgrade", *self.arguments)

    def _complaints(self) -> str:
        found: list[Path] = sorted(self.new.data_dir.rglob("loadable_libraries.txt"))
        return "".join(path.read_text() for path in found)


def test_pg_upgrade_carries_a_ticking_database_over_and_it_goes_on(earlier: Discovery, both: DebianRoot) -> None:
    old = earlier.cluster
    with Cluster(root=both.path, settings=TICKS_NOWHERE) as new:
        new.stop()
        upgrade = Upgrade(both, old, new)
        with closing(earlier.connect()) as connection:
            connection.execute("SELECT build.person(511, is_verified => TRUE)")
            until(lambda: "1ff" in completed(connection, "v"), "a tick of the old server", seconds=FIRST_TICK)

        if both.major >= 18:
            upgrade.give_up_checksums()

        # The old server may be at work while it is checked.
        code, said = upgrade.check()
        assert (code, "*Clusters are compatible*" in said) == (0, True), said
        assert "Performing Consistency Checks on Old Live Server" in said

        # A server that did not end well is not upgraded: it has to start and stop once more.
        old.crash()
        code, said = upgrade.check()
        assert code == 1
        assert "The source cluster was not shut down cleanly" in said
        old.start()
        with closing(earlier.connect()) as connection:
            connection.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")  # so that no tick comes in between
            if both.major == 18:
                connection.execute(FORGET_MARKS)
            expected = contents(connection)
            cluster_and_table = rows(connection, "SELECT cluster, relation FROM audius_challenges.installation")
            old.stop()

        # Nor without PL/Python for the new server.
        code, said = upgrade.check_without("plpython3")
        assert code == 1
        assert re.search(r"required libraries +fatal", said)
        assert 'could not load library "$libdir/plpython3"' in said

        upgrade.run()

        new.start()
        discovery = Discovery(new, "discovery")
        with closing(discovery.connect()) as connection:
            assert value(connection, "SHOW server_version_num")[:2] == str(both.major)
            assert contents(connection) == expected
            assert _compiled_anew(connection) == _as_new(new)
            # The table is the same, the cluster is another one: so everybody is examined again.
            here = "SELECT system_identifier, 'user_challenges'::regclass::oid::bigint FROM pg_control_system()"
            (before,), (after,) = cluster_and_table, rows(connection, here)
            assert after[0] != before[0]
            assert after[1] == before[1]
            swept = "SELECT challenge_id, sweep_rounds FROM audius_challenges.processor_state ORDER BY challenge_id"
            rounds = dict(rows(connection, swept))
            goes_on(connection)
            assert rows(connection, "SELECT cluster, relation FROM audius_challenges.installation") == [after]
            again = dict(rows(connection, swept))
            swept_again = {challenge for challenge in again if again[challenge] > rounds[challenge]}
            assert swept_again == set(RUN_ORDER) - set(ANY_WEEK)
        new.psql("postgres", "ALTER SYSTEM SET cron.use_background_workers = on")
        new.restart()
        with closing(discovery.connect()) as connection:
            _ticks_once(connection)
