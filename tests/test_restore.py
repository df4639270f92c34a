"""The database moved: dumped and restored, elsewhere or under another name, and a standby that is promoted."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from devtools.cluster import Cluster
from devtools.discovery import BUILDERS, CREATE_EXTENSION, SCHEMA, Discovery, create_discovery, require_extension
from tests.histories import FILLED_USERS, challenges_written, contents, dump, fill, goes_on
from tests.sessions import (
    RUN_LOCK,
    RUN_ORDER,
    Notice,
    completed,
    knows_seconds,
    rows,
    statuses,
    tables,
    tick,
    until,
    value,
)

REFUSED_BY_A_RESTORE = "a restore seems to be under way, nothing was done"


# A cluster with a schedule, a copy of it by dump and restore, and a standby


@pytest.fixture(scope="module")
def original(root: Path | None) -> Iterator[Discovery]:
    """A scheduled database with a history, held still: every tick finds a run under way."""
    with Cluster(root=root) as cluster:
        require_extension(cluster)
        discovery = create_discovery(cluster, "discovery")
        discovery.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION)
        with closing(discovery.connect()) as holder:
            fill(holder)
            assert value(holder, f"SELECT pg_try_advisory_lock({RUN_LOCK})") is True
            yield discovery


@dataclass
class Standby:
    """A streaming copy of the original, and what each call said on it before it was promoted."""

    discovery: Discovery
    refused: dict[str, psycopg.Error]
    status: list[tuple[Any, ...]]


CALLS = {
    "reconcile_challenges": "SELECT * FROM reconcile_challenges()",
    "dry run": "SELECT * FROM reconcile_challenges(dry_run => TRUE)",
    "tick": "CALL audius_challenges.tick()",
    "start_from_now": "SELECT audius_challenges.start_from_now()",
    "schedule_challenges": "SELECT * FROM schedule_challenges()",
    "unschedule_challenges": "SELECT * FROM unschedule_challenges()",
    "sync_challenge_catalog": "SELECT * FROM sync_challenge_catalog()",
}
STATUS = "SELECT challenge_id, status, last_run, sweep_rounds FROM challenge_status"


@pytest.fixture(scope="module")
def standby(original: Discovery, root: Path | None) -> Iterator[Standby]:
    """A standby that has been asked for everything, then promoted."""
    primary = original.cluster
    data_dir = primary.new_directory("standby")
    options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    primary.run("pg_basebackup", f"--pgdata={primary.inside(data_dir)}", *options)
    # Its jobs name the primary's port, so that pg_cron ticks there, and not in between here.
    with Cluster.adopt(data_dir, root=root) as cluster:
        discovery = Discovery(cluster, original.name)
        refused = {}
        with closing(discovery.connect()) as connection:
            assert value(connection, "SELECT pg_is_in_recovery()") is True
            for name, call in CALLS.items():
                with pytest.raises(psycopg.Error) as error:
                    connection.execute(call)
                refused[name] = error.value
            status = rows(connection, STATUS)
            assert value(connection, "SELECT pg_promote()") is True
            goes_on(connection)
        yield Standby(discovery, refused, status)


@pytest.mark.parametrize("name", CALLS)
def test_on_a_standby_a_call_is_a_clear_error(standby: Standby, name: str) -> None:
    refused = standby.refused[name]
    assert isinstance(refused, errors.ReadOnlySqlTransaction)
    assert refused.diag.message_primary == (
        "audius_challenges: this server is a standby: challenges are reconciled on the primary"
    )
    assert refused.diag.message_hint == "Call it on the primary; what it writes is replicated."


def test_on_a_standby_the_status_can_be_read(standby: Standby, original: Discovery) -> None:
    with closing(original.connect()) as connection:
        assert standby.status == rows(connection, STATUS)
    assert [row[:2] for row in standby.status] == [(challenge, "ok") for challenge in RUN_ORDER]


def test_a_promoted_standby_goes_on_without_a_new_sweep(standby: Standby) -> None:
    # That it pays, and nothing twice, was asserted right after the promotion.
    with closing(standby.discovery.connect()) as connection:
        swept = "SELECT challenge_id, sweep_rounds FROM challenge_status"
        assert rows(connection, swept) == [(challenge, rounds) for challenge, _, _, rounds in standby.status]


@pytest.fixture(scope="module")
def restored(original: Discovery, root: Path | None) -> Iterator[Discovery]:
    """The original, dumped and restored into another cluster."""
    path = dump(original.cluster, original.name)
    with Cluster(root=root) as cluster:
        cluster.create_database("discovery")
        cluster.run("pg_restore", "--exit-on-error", "--dbname=discovery", original.cluster.inside(path))
        yield Discovery(cluster, "discovery")


def test_a_restore_into_another_cluster_brings_back_every_row_and_the_schedule(
    original: Discovery, restored: Discovery
) -> None:
    with closing(original.connect()) as before, closing(restored.connect()) as after:
        expected = contents(before)
        assert contents(after) == expected
        assert len(expected["cron.job"]) == (2 if knows_seconds(before) else 3)
        assert len(expected["user_challenges"]) > FILLED_USERS
        assert len(expected["audius_challenges.processor_state"]) == len(RUN_ORDER)


def test_a_database_restored_into_another_cluster_goes_on_and_pays_nothing_twice(restored: Discovery) -> None:
    with closing(restored.connect()) as connection:
        goes_on(connection)


def test_scheduling_a_restored_database_points_its_jobs_at_the_new_server(
    original: Discovery, restored: Discovery
) -> None:
    with closing(restored.connect()) as connection:
        jobs = "SELECT jobname::text, nodename, nodeport, database FROM cron.job ORDER BY jobname"
        found = rows(connection, jobs)
        assert {job[2] for job in found} == {original.cluster.port}
        connection.execute("SELECT * FROM schedule_challenges()")
        cluster = restored.cluster
        here = (cluster.inside(cluster.socket_dir), cluster.port, "discovery")
        assert rows(connection, jobs) == [(job[0], *here) for job in found]


# The same cluster, another name


@pytest.fixture
def filled(discovery: Discovery) -> Discovery:
    """A database with a history, without pg_cron."""
    with closing(discovery.connect()) as connection:
        fill(connection)
    return discovery


@pytest.fixture
def copy(filled: Discovery) -> Iterator[Discovery]:
    """An empty database to restore it into."""
    name = f"{filled.name}_copy"
    filled.cluster.create_database(name)
    yield Discovery(filled.cluster, name)
    filled.cluster.drop_database(name)


def test_a_plain_dump_restored_under_another_name_brings_back_every_row_and_goes_on(
    filled: Discovery, copy: Discovery
) -> None:
    cluster = filled.cluster
    script = cluster.run("pg_dump", filled.name).stdout
    cluster.run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={copy.name}", input=script)

    with closing(filled.connect()) as before, closing(copy.connect()) as after:
        assert contents(after) == contents(before)
        goes_on(after)
        # And the one that was copied, too, as if nothing had happened.
        goes_on(before)


class Restore:
    """A restore that is done step by step, with a tick after each."""

    def __init__(self, filled: Discovery, copy: Discovery) -> None:
        self.path = dump(filled.cluster, filled.name)
        self.copy = copy

    def restore(self, *options: str) -> None:
        """Runs pg_restore with these options."""
        cluster = self.copy.cluster
        path = cluster.inside(self.path)
        cluster.run("pg_restore", "--exit-on-error", f"--dbname={self.copy.name}", *options, path)

    def keys(self) -> None:
        """Restores keys and indexes, and no triggers."""
        self._restore_listed("keys", has_triggers=False)

    def triggers(self) -> None:
        """Restores the triggers."""
        self._restore_listed("triggers", has_triggers=True)

    def tick(self) -> list[str]:
        """Ticks in a new session, asserts that nothing has changed, and returns what the tick said."""
        with closing(self.copy.connect()) as connection:
            before = contents(connection)
            heard = tick(connection)
            assert contents(connection) == before
            return [notice.message for notice in heard]

    def _restore_listed(self, name: str, has_triggers: bool) -> None:
        cluster = self.copy.cluster
        toc = cluster.run("pg_restore", "--list", cluster.inside(self.path)).stdout.splitlines()
        listed = self.path.with_name(f"{name}.list")
        listed.write_text("".join(f"{line}\n" for line in toc if (" TRIGGER " in line) == has_triggers))
        listed.chmod(0o644)
        self.restore("--section=post-data", f"--use-list={cluster.inside(listed)}")


KEYLESS = "challenge_listen_streak, challenge_profile_completion, challenges, trending_results, user_challenges"
NO_KEYS = [f"no primary key on {KEYLESS} yet: {REFUSED_BY_A_RESTORE}"]
CONNECTED = """
    SELECT pid
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pg_restore'
"""
TRIGGERS = ("trigger that calls handle_user_challenge()", "trigger that calls log_user_challenge()")
NO_TRIGGERS = [f"user_challenges has no {', no '.join(TRIGGERS)} yet: {REFUSED_BY_A_RESTORE}"]


def test_a_tick_in_the_middle_of_a_restore_does_nothing_and_says_so(filled: Discovery, copy: Discovery) -> None:
    restore = Restore(filled, copy)
    restore.restore("--section=pre-data")
    assert restore.tick() == NO_KEYS
    restore.restore("--section=data")
    assert restore.tick() == NO_KEYS
    restore.keys()
    assert restore.tick() == NO_TRIGGERS
    restore.triggers()
    with closing(psycopg.connect(copy.dsn(), application_name="pg_restore")):
        assert restore.tick() == [f"pg_restore is connected: {REFUSED_BY_A_RESTORE}"]

    with closing(copy.connect()) as connection:
        until(lambda: not rows(connection, CONNECTED), "the end of pg_restore's session")
        goes_on(connection)


def test_reconciling_in_the_middle_of_a_restore_fails_and_waves_no_tick_through(
    filled: Discovery, copy: Discovery
) -> None:
    restore = Restore(filled, copy)
    restore.restore("--section=pre-data")
    restore.restore("--section=data")
    with closing(filled.connect()) as before, closing(copy.connect()) as connection:
        found = statuses(connection)
        no_key = "no primary key on public.challenges"
        assert {(status, str(error)[: len(no_key)]) for status, error in found.values()} == {("failed", no_key)}
        assert challenges_written(connection) == challenges_written(before)
    restore.keys()
    assert restore.tick() == NO_TRIGGERS
    restore.triggers()
    with closing(copy.connect()) as connection:
        goes_on(connection)


def test_ticks_all_through_a_restore_write_nothing_and_do_not_disturb_it(filled: Discovery, copy: Discovery) -> None:
    cluster = filled.cluster
    filled.psql(
        "INSERT INTO follows SELECT n, 1, TRUE, FALSE, NULL, now() FROM generate_series(1, 100000) AS n",
        "SELECT * FROM reconcile_challenges()",
    )
    script = cluster.run("pg_dump", filled.name).stdout
    heard: list[Notice] = []
    over = threading.Event()

    def tick_and_tick() -> None:
        not_yet = (errors.InvalidSchemaName, errors.UndefinedFunction, errors.UndefinedTable)
        with closing(copy.connect()) as connection:
            while not over.is_set():
                try:
                    heard.extend(tick(connection) or [Notice("ran", None)])
                except not_yet:
                    over.wait(0.01)

    ticking = threading.Thread(target=tick_and_tick)
    ticking.start()
    try:
        cluster.run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={copy.name}", input=script)
    finally:
        over.set()
        ticking.join()

    with closing(filled.connect()) as before, closing(copy.connect()) as after:
        # Not of our own tables, since the last tick may have come after the end.
        expected, found = (
            {table: each for table, each in contents(database).items() if not table.startswith("audius_challenges.")}
            for database in (before, after)
        )
        assert found == expected
    told = [notice.message for notice in heard]
    assert sum(REFUSED_BY_A_RESTORE in message for message in told) >= 3
    assert "ran" not in told[:-2]


# Rows without their tables


STATE = ("processor_state", "look", "pause", "installation")


@pytest.mark.parametrize("with_state", [True, False])
def test_rows_set_back_in_place_to_those_of_an_older_dump_go_on_from_there(filled: Discovery, with_state: bool) -> None:
    """TRUNCATE and COPY: the same cluster and the same table, whose rows are other versions of older ones."""
    with closing(filled.connect()) as connection:
        connection.execute("SELECT build.person(300, is_verified => TRUE)")
        kept = [*tables(connection, "public"), *(f"audius_challenges.{name}" for name in STATE if with_state)]
        connection.execute("CREATE SCHEMA kept")
        for number, table in enumerate(kept):
            connection.execute(f"CREATE TABLE kept.t{number} AS TABLE {table}")
        final = "SELECT each::text FROM user_challenges AS each WHERE is_complete ORDER BY 1"
        before = rows(connection, final)
        connection.execute("SELECT build.person(301, is_verified => TRUE), build.playlist(301, 301)")
        for _ in range(3):
            assert tick(connection) == []
        assert {"12c", "12d"} <= set(completed(connection, "v"))

        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(f"TRUNCATE {', '.join(kept)}")
            for number, table in enumerate(kept):
                connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept.t{number}")

        assert rows(connection, final) == before
        assert tick(connection) == []
        after = rows(connection, final)
        assert [row for row in after if row not in before] == rows(
            connection, "SELECT each::text FROM user_challenges AS each WHERE (challenge_id, specifier) = ('v', '12c')"
        )
        assert [row for row in before if row not in after] == []
        goes_on(connection)


def test_a_data_only_restore_into_a_schema_with_the_extension_goes_on_and_ticks_wait_meanwhile(
    filled: Discovery, copy: Discovery
) -> None:
    """All rows come, those of the state too; a catalog that CREATE EXTENSION has filled has to make room."""
    restore = Restore(filled, copy)
    copy.psql(SCHEMA, BUILDERS, CREATE_EXTENSION, "TRUNCATE challenges CASCADE", "TRUNCATE build.exemption")
    restore.restore("--data-only", "--disable-triggers")
    with closing(psycopg.connect(copy.dsn(), application_name="pg_restore")):
        assert restore.tick() == [f"pg_restore is connected: {REFUSED_BY_A_RESTORE}"]
    with closing(filled.connect()) as before, closing(copy.connect()) as after:
        assert contents(after) == contents(before)
        until(lambda: not rows(after, CONNECTED), "the end of pg_restore's session")
        goes_on(after)
