"""The container image: built from its Dockerfile on stand-ins for the official images, and run by its own entrypoint.

Containers start early and side by side, because a tick comes after half a minute and one is overdue after a minute.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools import REPOSITORY
from tests.deployment.containers import INIT_SCRIPTS, SOCKETS, Container, Image, Mount, built_image, official_data
from tests.sessions import Connection, column, completed, failing, rows, until, value

pytestmark = pytest.mark.timeout(900)  # the first build of all, from nothing

ODD_DATABASE = """Odd "disco-very" it's $1"""  # psql takes a name with = for more than a name
ODD_USER = "The Owner - of it"  # PostgreSQL itself refuses quotes and dollars here
ODD_PASSWORD = """pass 'word' "$" \\ """  # noqa: S105 (of a server that is gone afterwards)
ODD_PREFIX = "\"%m\" $user [%p] '%q%u' "
SCRAM = {"POSTGRES_INITDB_ARGS": "--auth=scram-sha-256"}  # also for the socket and localhost
PLAIN = {"POSTGRES_PASSWORD": "secret", "POSTGRES_DB": "discovery"}
EVERY_SECOND = "SELECT * FROM schedule_challenges('1 second')"
SUCCESSES = "cron.job_run_details WHERE status = 'succeeded' AND command LIKE '%tick(%'"
PATIENCE = 63  # seconds after which a tick that is due every second is overdue

Start = Callable[..., Container]


# The two forms of the official image: from 18 on, its data is elsewhere.
@pytest.fixture(scope="module", params=(17, 18))
def major(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def image(major: int) -> Iterator[Image]:
    with built_image(major) as image:
        yield image


@pytest.fixture(scope="module")
def start(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a container, as `Container` says, which ends with the tests of this file."""
    directories = []
    with ExitStack() as stack:

        def start(environment: dict[str, str], **options: Any) -> Container:
            directories.append(tmp_path_factory.mktemp("container"))
            return stack.enter_context(Container(image, environment, directory=directories[-1], **options))

        yield start
    for directory in directories:  # the clusters are large
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def odd(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Container:
    """An empty database. Everything that may be odd is: names, passwords, authentication, arguments. A script after
    the image's own waits until it is let go."""
    secrets = tmp_path_factory.mktemp("secrets")
    secrets.chmod(0o755)
    (secrets / "password").write_text(ODD_PASSWORD)
    (secrets / "user").write_text(ODD_USER)
    (secrets / "wait.sh").write_text(f"until [ -e {SOCKETS}/go ]; do sleep 0.1; done\n")
    return start(
        {
            "POSTGRES_DB": ODD_DATABASE,
            "POSTGRES_USER_FILE": "/run/secrets/user",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/password",
            **SCRAM,
        },
        arguments=["postgres", "-c", f"log_line_prefix={ODD_PREFIX}"],
        mounts=[Mount(secrets, "/run/secrets"), Mount(secrets / "wait.sh", f"{INIT_SCRIPTS}/zzz-wait.sh")],
    )


@pytest.fixture(scope="module")
def demo(start: Start) -> Container:
    """The service of compose.yaml, with the environment, the command and the mounts that it has there."""
    service = composition()["services"]["discovery"]
    environment = {name: str(setting) for name, setting in service["environment"].items()}
    volumes = {source: (target, read_only) for source, target, read_only in map(volume_of, service["volumes"])}
    assert volumes.pop("data") == (environment["PGDATA"], False)  # which any container has
    mounts = [Mount(Path(source), *volume) for source, volume in volumes.items()]
    return start(environment, arguments=service.get("command", []), mounts=mounts)


@pytest.fixture(scope="module")
def refused(start: Start) -> Container:
    """An empty database whose pg_cron connects as a client, without the password that it would need."""
    return start(PLAIN | SCRAM, arguments=["-c", "cron.use_background_workers=off"])


@pytest.fixture(scope="module")
def stopped(start: Start) -> Container:
    """An empty database that was ticking every second when pg_cron was told to launch nothing."""
    container = start(PLAIN)
    container.wait_for_server()
    with container.connect("discovery") as connection:
        connection.execute(EVERY_SECOND)
        ticked_again(connection)
        connection.execute("ALTER SYSTEM SET cron.launch_active_jobs = off")
        connection.execute("SELECT pg_reload_conf()")
    return container


@pytest.fixture(scope="module")
def restored(start: Start, demo: Container, tmp_path_factory: pytest.TempPathFactory) -> Container:
    """A database with a dump of the demo's: discovery tables, challenges paid already, the extension and its jobs.

    The jobs are of a role, and run every 20 seconds; others that look like them tick another database.
    """
    demo.wait_for_server()
    dump = dumped(demo, "discovery", tmp_path_factory.mktemp("dump"))
    with dump.open("a") as script:
        script.write(
            """
            CREATE ROLE runner LOGIN;
            SELECT audius_challenges.grant_run('runner');
            UPDATE cron.job SET schedule = '20 seconds' WHERE jobname = 'audius_challenges tick';
            UPDATE cron.job SET username = 'runner';
            CREATE DATABASE staging;
            SELECT cron.schedule_in_database('audius_challenges tick staging', '0 0 1 1 *', 'SELECT 1', 'staging');
            """
        )
    return start(PLAIN | {"POSTGRES_DB": "restored"}, mounts=[Mount(dump, f"{INIT_SCRIPTS}/discovery.sql")])


@pytest.fixture(scope="module")
def filled(start: Start, demo: Container, tmp_path_factory: pytest.TempPathFactory) -> Container:
    """A database with a dump of discovery tables without the extension, in which nobody has been paying yet."""
    demo.wait_for_server()
    create_source(demo, "source", "SELECT build.person(7, is_verified => TRUE)")
    dump = dumped(demo, "source", tmp_path_factory.mktemp("dump"))
    return start(PLAIN, mounts=[Mount(dump, f"{INIT_SCRIPTS}/discovery.sql")])


@pytest.fixture(scope="module")
def paid(start: Start, demo: Container, tmp_path_factory: pytest.TempPathFactory) -> Container:
    """A database with a dump of discovery tables without the extension, in which another service has been paying."""
    demo.wait_for_server()
    create_source(
        demo,
        "paid_source",
        """
        SELECT build.person(7);
        INSERT INTO challenges (id, type, amount, active) VALUES ('v', 'boolean', '5', TRUE);
        INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, amount)
        VALUES ('v', 7, '7', TRUE, 5)
        """,
    )
    dump = dumped(demo, "paid_source", tmp_path_factory.mktemp("dump"))
    return start(PLAIN, mounts=[Mount(dump, f"{INIT_SCRIPTS}/discovery.sql")])


@pytest.fixture(scope="module", autouse=True)
def all_started(request: pytest.FixtureRequest, refused: Container) -> None:
    """Starts what has to wait for ticks, so that it waits side by side."""
    for container in ("odd", "demo", "stopped", "restored", "filled"):
        request.getfixturevalue(container)
    refused.wait_for_server()
    with refused.connect("discovery", password=PLAIN["POSTGRES_PASSWORD"]) as connection:
        connection.execute(EVERY_SECOND)


def composition() -> dict[str, Any]:
    """compose.yaml as the tool itself reads it."""
    command = ["docker-compose", "--file", str(REPOSITORY / "compose.yaml"), "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read: dict[str, Any] = yaml.safe_load(done.stdout)
    return read


def volume_of(volume: str | dict[str, Any]) -> tuple[str, str, bool]:
    """Source, target, and whether read-only, of a volume as version 1 of the tool prints it, or version 2."""
    if isinstance(volume, dict):
        return volume["source"], volume["target"], volume.get("read_only", False)
    source, target, mode = volume.split(":")
    return source, target, mode == "ro"


def create_source(demo: Container, database: str, statements: str) -> None:
    """A database with the discovery tables and some rows, to be dumped."""
    with demo.connect("postgres") as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    files = ("--file=/discovery/schema.sql", "--file=/discovery/builders.sql", f"--command={statements}")
    done = demo.execute("psql", "-XqU", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", *files)
    assert done.returncode == 0, done.stderr


def dumped(demo: Container, database: str, directory: Path) -> Path:
    """A plain dump of a database of the demo."""
    done = demo.execute("pg_dump", "--username=postgres", database)
    assert done.returncode == 0, done.stderr
    path = directory / "dump.sql"
    path.write_text(done.stdout)
    return path


def ticked(connection: Connection) -> None:
    """Waits until a tick has succeeded since the server started."""
    query = f"SELECT FROM {SUCCESSES} AND start_time > pg_postmaster_start_time()"
    until(lambda: rows(connection, query), "a tick that succeeds", seconds=45)


def ticked_again(connection: Connection) -> None:
    """Waits until another tick has succeeded."""
    query = f"SELECT coalesce(max(runid), 0) FROM {SUCCESSES}"
    before = value(connection, query)
    until(lambda: value(connection, query) > before, "another tick that succeeds", seconds=45)


def last_tick(connection: Connection) -> float:
    """How long ago the last tick ended, in seconds."""
    query = "SELECT extract(epoch FROM clock_timestamp() - max(end_time)) FROM cron.job_run_details"
    return float(value(connection, query))


def jobs(connection: Connection) -> list[tuple[str, str, str]]:
    """Schedule, database and role of each job that ticks."""
    return rows(connection, "SELECT schedule, database, username FROM cron.job WHERE command LIKE '%tick(%'")


# What is in it


def test_the_image_has_no_compiler_and_nothing_of_the_build(image: Image, major: int) -> None:
    programs = {path.name for path in (image.root / "usr/bin").iterdir()}
    assert programs & {"gcc", "cc", "clang", "ld", "make", "python3"} == set()
    packages = (image.root / "var/lib/dpkg/status").read_text()
    assert f"Package: postgresql-{major}-cron\n" in packages
    assert f"Package: postgresql-plpython3-{major}\n" in packages
    assert f"Package: postgresql-server-dev-{major}\n" not in packages
    assert not (image.root / "source").exists()
    assert not (image.root / "built").exists()
    assert not list((image.root / "var/lib/apt/lists").glob("*Packages*"))


def test_the_image_has_the_files_that_the_build_installs(image: Image, major: int) -> None:
    extensions = image.root / f"usr/share/postgresql/{major}/extension"
    installed = {path.name for path in extensions.glob("audius_challenges*")}
    control = (REPOSITORY / "extension" / "audius_challenges.control").read_text()
    version = control.split("default_version = '")[1].split("'")[0]
    assert {"audius_challenges.control", f"audius_challenges--{version}.sql"} <= installed
    assert (extensions / "audius_challenges.control").read_text() == control


def test_entrypoint_command_stop_signal_and_data_are_those_of_the_base(image: Image, major: int) -> None:
    assert image.configuration["Entrypoint"] == ["docker-entrypoint.sh"]
    assert image.configuration["Cmd"] == ["postgres"]
    assert image.configuration["StopSignal"] == "SIGINT"
    assert (image.environment["PGDATA"], image.volume) == official_data(major)


# An empty database


def test_arguments_outlast_the_restart_of_the_temporary_server(odd: Container) -> None:
    until(lambda: "zzz-wait.sh" in odd.log(), "the last init script", seconds=60)
    with odd.connect(ODD_DATABASE, ODD_USER, ODD_PASSWORD) as connection:
        assert value(connection, "SHOW listen_addresses") == ""
        assert value(connection, "SHOW log_line_prefix") == ODD_PREFIX


def test_a_cluster_that_is_still_being_made_is_not_healthy(odd: Container) -> None:
    until(lambda: "zzz-wait.sh" in odd.log(), "the last init script", seconds=60)
    assert odd.health() == (1, "unhealthy: the cluster is still being made")
    (odd.socket_dir / "go").touch()
    odd.wait_for_server()
    assert odd.health() == (0, f"healthy: the first tick of {ODD_DATABASE} is not overdue")


def test_the_database_that_the_environment_names_has_the_extension_and_ticks(odd: Container) -> None:
    odd.wait_for_server()
    with odd.connect(ODD_DATABASE, ODD_USER, ODD_PASSWORD) as connection:
        assert column(connection, "SELECT extname FROM pg_extension ORDER BY 1") == [
            "audius_challenges",
            "pg_cron",
            "plpgsql",
            "plpython3u",
        ]
        assert value(connection, "SELECT current_setting('cron.database_name')") == ODD_DATABASE
        assert jobs(connection) == [("30 seconds", ODD_DATABASE, ODD_USER)]
        ticked(connection)
    code, words = odd.health()
    assert (code, words.startswith(f"healthy: the last tick of {ODD_DATABASE} ended ")) == (0, True), words


def test_jobs_have_room_beside_parallel_queries(odd: Container) -> None:
    with odd.connect(ODD_DATABASE, ODD_USER, ODD_PASSWORD) as connection:
        room = "current_setting('max_worker_processes')::integer - current_setting('max_parallel_workers')::integer"
        assert value(connection, f"SELECT {room}") == 8


def test_a_server_without_a_schedule_is_not_healthy(odd: Container) -> None:
    without = (1, "unhealthy: no tick is scheduled; SELECT * FROM schedule_challenges();")
    with odd.connect(ODD_DATABASE, ODD_USER, ODD_PASSWORD) as connection:
        connection.execute("SELECT * FROM unschedule_challenges()")
        assert odd.health() == without
        connection.execute("SELECT * FROM schedule_challenges()")
        assert odd.health()[0] == 0
        connection.execute("SELECT cron.alter_job(jobid, active => FALSE) FROM cron.job")
        assert odd.health() == without
        connection.execute(EVERY_SECOND)
        assert odd.health()[0] == 0


def test_a_restarted_container_ticks_on(odd: Container) -> None:
    odd.stop()
    odd.start()
    odd.wait_for_server()
    assert odd.health()[0] == 0
    with odd.connect(ODD_DATABASE, ODD_USER, ODD_PASSWORD) as connection:
        ticked(connection)


def test_another_environment_later_does_not_mislead_the_health_check(odd: Container) -> None:
    before = odd.environment
    odd.environment = before | {"POSTGRES_DB": "somewhere else"}
    try:
        code, words = odd.health()
    finally:
        odd.environment = before
    assert (code, ODD_DATABASE in words) == (0, True), words


def test_a_container_without_a_server_is_not_healthy(start: Start) -> None:
    idle = start(PLAIN, arguments=["sleep", "infinity"])
    data = idle.environment["PGDATA"]
    until(idle.is_running, "the container")
    assert idle.health() == (1, f"unhealthy: no server runs in {data}")
    left_behind = f"99\n{data}\n0\n5432\n/var/run/postgresql\n*\n\nready\n"
    (idle.data_dir / "postmaster.pid").write_text(left_behind)  # by a crash
    code, words = idle.health()
    assert (code, words.startswith("unhealthy: psql: error: connection to server")) == (1, True), words


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("shared_preload_libraries=", "shared_preload_libraries has no pg_cron"),
        ("cron.database_name=postgres", "cron.database_name is not the database of POSTGRES_DB, discovery"),
    ],
)
def test_arguments_that_take_pg_cron_away_are_refused(start: Start, setting: str, complaint: str) -> None:
    container = start(PLAIN, arguments=["-c", setting])
    assert container.wait(60) == 1
    assert f"audius_challenges: {complaint}" in container.log()


# The composition


def test_the_demo_of_the_composition_ticks_and_completes_challenges(demo: Container) -> None:
    demo.wait_for_server()
    with demo.connect("discovery") as connection:
        until(lambda: completed(connection, "u"), "a completed challenge", seconds=60)
        ticked(connection)
        assert value(connection, "SELECT count(*) FROM users WHERE is_current") == 3200
        assert len(completed(connection, "u")) == 168
        assert failing(connection) == {}
    assert demo.health()[0] == 0


def test_size_and_base_of_the_demo_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE", "0.01")
    monkeypatch.setenv("BASE", "postgres:18")
    demo = composition()["services"]["discovery"]
    assert demo["environment"]["SCALE"] == "0.01"
    assert demo["build"]["args"] == {"BASE": "postgres:18"}


def test_a_standby_is_healthy_and_ticks_once_it_is_promoted(start: Start, demo: Container) -> None:
    with demo.connect("discovery") as connection:
        connection.execute(EVERY_SECOND)
        ticked_again(connection)
    copied = demo.execute("pg_basebackup", "-U", "postgres", "-D", f"{SOCKETS}/copy", "--checkpoint=fast")
    assert copied.returncode == 0, copied.stderr
    standby = start(PLAIN, arguments=["sleep", "infinity"])
    standby.kill()
    shutil.copytree(demo.socket_dir / "copy", standby.data_dir, dirs_exist_ok=True)
    shutil.rmtree(demo.socket_dir / "copy")
    (standby.data_dir / "standby.signal").touch()
    standby.arguments = ["postgres"]
    standby.start()
    standby.wait_for_server()
    assert standby.health() == (0, "healthy: a standby, which the primary ticks for")
    with standby.connect("discovery") as connection:
        assert value(connection, "SELECT pg_promote()")
        ticked_again(connection)
    assert standby.health()[0] == 0


# Dumps in /docker-entrypoint-initdb.d


def test_a_dump_without_the_extension_is_reconciled(filled: Container) -> None:
    filled.wait_for_server()
    with filled.connect("discovery") as connection:
        assert jobs(connection) == [("30 seconds", "discovery", "postgres")]
        until(lambda: completed(connection, "v") == ["7"], "the verified user", seconds=45)
    assert filled.health()[0] == 0


def test_a_tick_that_reports_a_failing_challenge_has_ticked(filled: Container) -> None:
    with filled.connect("discovery") as connection:
        connection.execute("ALTER TABLE tracks RENAME stem_of TO stem")
        connection.execute(EVERY_SECOND)
        until(lambda: "u" in failing(connection), "the failure")
        connection.execute("DELETE FROM cron.job_run_details WHERE status = 'succeeded'")
        until(
            lambda: rows(connection, "SELECT FROM cron.job_run_details WHERE status = 'failed' AND end_time < now()"),
            "a tick that failed",
        )
        code, words = filled.health()
        assert (code, words.startswith("healthy: the last tick of discovery ended ")) == (0, True), words


def test_a_dump_with_the_extension_goes_on_under_another_name(restored: Container) -> None:
    restored.wait_for_server()
    with restored.connect("restored") as connection:
        assert jobs(connection) == [("20 seconds", "restored", "runner")]
        others = rows(connection, "SELECT database FROM cron.job WHERE jobname = 'audius_challenges tick staging'")
        assert others == [("staging",)]
        assert value(connection, "SELECT count(*) FROM users WHERE is_current") == 3200
        ticked(connection)
        assert failing(connection) == {}
        assert len(completed(connection, "u")) == 168
    assert restored.health()[0] == 0


def test_a_dump_that_another_service_has_paid_in_is_left_to_its_owner(paid: Container) -> None:
    paid.wait_for_server()
    with paid.connect("discovery") as connection:
        assert jobs(connection) == []
        assert rows(connection, "SELECT challenge_id, specifier FROM user_challenges") == [("v", "7")]
    assert "user_challenges is not empty, so another service may be paying: nothing was scheduled" in paid.log()
    assert paid.health()[0] == 1


# Ticks that do not come


def test_ticks_that_never_start_are_noticed(refused: Container) -> None:
    with refused.connect("discovery", password=PLAIN["POSTGRES_PASSWORD"]) as connection:
        until(
            lambda: value(connection, "SELECT now() - pg_postmaster_start_time() > %s * interval '1 s'", PATIENCE),
            "the time when the first tick is overdue",
            seconds=90,
        )
        assert column(connection, "SELECT DISTINCT return_message FROM cron.job_run_details") == ["connection failed"]
    until(lambda: refused.health()[0] == 1, "the health check's opinion", seconds=3)  # it counts in whole seconds
    assert refused.health() == (1, "unhealthy: the first tick of discovery is overdue; see cron.job_run_details")


def test_ticks_that_stop_are_noticed(stopped: Container) -> None:
    with stopped.connect("discovery") as connection:
        until(lambda: last_tick(connection) > PATIENCE, "the time when the next tick is overdue", seconds=90)
        until(lambda: stopped.health()[0] == 1, "the health check's opinion", seconds=3)
        words = stopped.health()[1]
        assert re.fullmatch(r"unhealthy: the last tick of discovery ended \d+ s ago; see cron.job_run_details", words)
        connection.execute("ALTER SYSTEM RESET cron.launch_active_jobs")
        connection.execute("SELECT pg_reload_conf()")
        ticked_again(connection)
    assert stopped.health()[0] == 0
