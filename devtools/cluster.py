"""Throw-away PostgreSQL clusters with pg_cron, for the tests, the demo and the benchmarks.

    with Cluster() as cluster:
        cluster.create_database("discovery")
        cluster.psql("discovery", Path("discovery/schema.sql"), "CREATE EXTENSION audius_challenges CASCADE")
        with cluster.connect("discovery") as connection: ...

Never the machine's own cluster: each has its own directory, port and socket directory, and is gone
afterwards, also when this process is killed (see ``guard``).
"""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg import sql

from devtools import guard
from devtools.debian_root import inside_root

# The kernel's limit on the path of a unix socket, less its closing zero byte.
LONGEST_SOCKET_PATH = 107
START_SECONDS = 120
# Files come and go in memory in a quarter of the time; where it has less room (bytes), as in most containers, on disk.
MEMORY = Path("/dev/shm")  # noqa: S108
MEMORY_ROOM = 4 << 30
# Programs that write into a data directory, whose owner the server insists on being.
SERVER_PROGRAMS = frozenset(
    {
        "initdb",
        "pg_ctl",
        "postgres",
        "pg_basebackup",
        "pg_rewind",
        "pg_upgrade",
        "pg_resetwal",
        "pg_controldata",
        "pg_checksums",
    }
)
_READY = "database system is ready to accept connections"
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

StopMode = Literal["fast", "smart", "immediate"]


class ClusterError(RuntimeError):
    """A program of the cluster failed; the message holds the command and what it printed."""


class Cluster:
    """One cluster. The directories exist from construction, the server runs from `start` (or ``with``) on.

    bin_dir: where the server's programs are; by default what ``$PG_CONFIG --bindir`` (or ``pg_config``) says.
    cron_database: where pg_cron lives. Not created: until it is there, pg_cron tries again every second.
    settings: lines for postgresql.conf, over the defaults (for example ``{"fsync": "on"}``).
    root: directory of another Debian, in which everything runs by chroot; needs root.
    in_memory: whether its files may be in memory, if there is room; those of a benchmark are where production's are.

    Raises ClusterError when a program fails.
    """

    port: int
    directory: Path
    """Holds everything of the cluster; belongs to the server's user, removed in the end."""
    data_dir: Path
    socket_dir: Path
    bin_dir: Path
    """As the server's own Debian sees it, so without ``root``."""
    major: int

    def __init__(
        self,
        bin_dir: Path | None = None,
        *,
        cron_database: str = "discovery",
        settings: Mapping[str, str] = NO_SETTINGS,
        root: Path | None = None,
        in_memory: bool = True,
        _data_dir: Path | None = None,
    ) -> None:
        self.root = root.resolve() if root else None
        self.bin_dir = bin_dir or _default_bin_dir(self.root)
        self.cron_database = cron_database
        self.in_memory = in_memory
        self.port = _free_port()
        self._settings = dict(settings)
        self._server_user = _server_user(self.root)
        self._configured = False
        self._adopted = _data_dir is not None

        parent = self.root / "tmp" if self.root else None
        if in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_ROOM:
            parent = MEMORY  # which a root has, too, by the same path
        self.directory = Path(tempfile.mkdtemp(prefix="challenges-", dir=parent)).resolve()
        self.data_dir = _data_dir.resolve() if _data_dir else self.directory / "data"
        self.socket_dir = self.directory / "socket"
        self._log_file = self.directory / "server.log"
        self._guard = _start_guard(self.data_dir, self.directory)
        try:
            self._give_to_server(self.directory)
            self.new_directory("socket")
            self.major = self._ask_major()
        except BaseException:
            self.close()
            raise

    @classmethod
    def adopt(
        cls,
        data_dir: Path,
        bin_dir: Path | None = None,
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
        root: Path | None = None,
    ) -> Self:
        """A cluster on a data directory that is already there (a pg_basebackup, a copy), with a port and a
        socket directory of its own. The data directory stays when the cluster goes: it belongs to whoever
        made it, best by `new_directory` of the primary."""
        return cls(bin_dir, settings=settings, root=root, _data_dir=data_dir)

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<{type(self).__name__} PostgreSQL {self.major}, port {self.port}, {self.directory}, {state}>"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The server

    @property
    def running(self) -> bool:
        """Whether any process of the server is alive."""
        return bool(guard.processes_in(self.data_dir))

    def start(self) -> None:
        """Starts the server and waits until it answers; the first time, makes the cluster."""
        if not self._configured:
            if not (self.data_dir / "PG_VERSION").exists():
                self._initdb()
            self._write_settings()
            self._configured = True
        try:
            self._pg_ctl("start", f"--log={self.inside(self._log_file)}", f"--timeout={START_SECONDS}")
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.log()}") from error

    def stop(self, mode: StopMode = "fast") -> None:
        """Stops the server and waits for its end."""
        self._pg_ctl("stop", f"--mode={mode}")

    def restart(self) -> None:
        """Stops (fast) and starts the server; settings changed by ALTER SYSTEM that need it take effect."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """Kills the postmaster and all its children with SIGKILL, as a power cut would; `start` recovers."""
        postmaster = self._postmaster()
        if postmaster is not None:  # first, or it would see its children die and begin the recovery by itself
            os.kill(postmaster, signal.SIGKILL)
        guard.end_processes(self.data_dir, signal.SIGKILL)
        # A dead process that nobody has reaped yet would look alive to the next postmaster.
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        (self.socket_dir / f".s.PGSQL.{self.port}.lock").unlink(missing_ok=True)

    def kill(self, pid: int) -> None:
        """Kills one process of the server with SIGKILL, as the kernel does when memory runs out. The others end with
        it, the server recovers by itself, and this returns when it has.

        Raises ClusterError when that takes too long.
        """
        before = self.log().count(_READY)
        os.kill(pid, signal.SIGKILL)
        # Until the first process has noticed it, it lets others in, and throws them out then.
        deadline = time.monotonic() + START_SECONDS
        while self.log().count(_READY) == before:
            if time.monotonic() > deadline:
                raise ClusterError(f"the server has not come back {START_SECONDS} s after a process was killed")
            time.sleep(0.1)

    def close(self) -> None:
        """Stops the server and removes the cluster. Harmless when called twice."""
        if self._guard.poll() is not None:
            return
        guard.end_processes(self.data_dir, signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._guard.communicate(b"tidied up\n")

    def log(self) -> str:
        """What the server has logged so far."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    # Its clients

    @property
    def host(self) -> str:
        """What clients outside connect to: the socket directory, or 127.0.0.1 where its path is too long."""
        too_long = len(os.fsencode(self.socket_dir / f".s.PGSQL.{self.port}")) > LONGEST_SOCKET_PATH
        return "127.0.0.1" if too_long else str(self.socket_dir)

    def dsn(self, database: str, user: str = "postgres") -> str:
        """Connection string for a client outside, psycopg or psql."""
        return f"host={self.host} port={self.port} dbname={database} user={user}"

    def connect(self, database: str, user: str = "postgres", autocommit: bool = True) -> psycopg.Connection[Any]:
        """A new connection; the caller closes it."""
        return psycopg.connect(self.dsn(database, user), autocommit=autocommit)

    def create_database(self, name: str, template: str | None = None) -> None:
        """Creates a database, as a copy of ``template`` if given (nobody may be connected to that one)."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self.connect("postgres") as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template or "template1")))

    def drop_database(self, name: str) -> None:
        """Drops a database if it is there, throwing out whoever is connected to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with self.connect("postgres") as connection:
            connection.execute(statement.format(psycopg.sql.Identifier(name)))

    def psql(
        self,
        database: str,
        *sources: Path | str,
        variables: Mapping[str, str] = NO_SETTINGS,
        user: str = "postgres",
    ) -> str:
        """Runs files (Path) and statements (str) by psql, each in a session of its own, stopping at the
        first error; returns what they printed, unaligned and without headers."""
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        options += [f"--set={name}={value}" for name, value in variables.items()]
        options += [f"--username={user}", f"--dbname={database}"]
        printed = []
        for source in sources:
            if isinstance(source, str):
                done = self.run("psql", *options, f"--command={source}")
            elif self.root:  # which does not see our files
                done = self.run("psql", *options, "--file=-", input=source.read_text())
            else:
                done = self.run("psql", *options, f"--file={source.resolve()}")
            printed.append(done.stdout)
        return "".join(printed)

    def run(
        self,
        program: str,
        *arguments: str,
        input: str | None = None,  # noqa: A002 (as subprocess names it)
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs one of PostgreSQL's programs (pg_dump, pg_restore, pg_basebackup, …) against this cluster:
        host, port and user come by the environment. Those that write a data directory run as the server's
        user, all of them do under ``root``, where paths have to go through `inside`. With ``check``,
        failure raises ClusterError."""
        command = [str(self.bin_dir / program), *arguments]
        environment = self.environment()
        if self.root or program in SERVER_PROGRAMS:
            command = self._as_server(command)
            environment["PGHOST"] = self.inside(self.socket_dir)
        done = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.directory,
            check=False,
        )
        if check and done.returncode != 0:
            raise ClusterError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        return done

    def environment(self) -> dict[str, str]:
        """Environment in which libpq's programs find this cluster, as superuser, and no other."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return ours | {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "LC_ALL": "C.UTF-8",
        }

    # Its files

    def new_directory(self, name: str) -> Path:
        """A directory of the server's user inside the cluster's own, removed with the cluster."""
        path = self.directory / name
        path.mkdir(mode=0o700)
        self._give_to_server(path)
        return path

    def inside(self, path: Path) -> str:
        """The path as the server sees it: without ``root``."""
        return f"/{path.relative_to(self.root)}" if self.root and path.is_relative_to(self.root) else str(path)

    # Within

    def _initdb(self) -> None:
        self.run(
            "initdb",
            f"--pgdata={self.inside(self.data_dir)}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )

    def _write_settings(self) -> None:
        socket_dir = self.inside(self.socket_dir)
        of_this_place = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": socket_dir,
            "cron.host": socket_dir,
        }
        of_a_new_cluster = {
            "shared_preload_libraries": "pg_cron",
            "cron.database_name": self.cron_database,
            "fsync": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%u@%d %a ",
        }
        settings = ({} if self._adopted else of_a_new_cluster) | of_this_place | self._settings
        lines = ["", "# Of this throw-away cluster"]
        lines += [f"{name} = '{_quoted(value)}'" for name, value in settings.items()]
        with (self.data_dir / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")

    def _pg_ctl(self, action: str, *options: str) -> None:
        self.run("pg_ctl", action, "--silent", "--wait", f"--pgdata={self.inside(self.data_dir)}", *options)

    def _postmaster(self) -> int | None:
        pid_file = self.data_dir / "postmaster.pid"
        if not pid_file.exists():
            return None
        pid = int(pid_file.read_text().split()[0])
        return pid if pid in guard.processes_in(self.data_dir) else None

    def _ask_major(self) -> int:
        version = self.run("postgres", "--version").stdout
        match = re.search(r"\(PostgreSQL\) (\d+)", version)
        if match is None:
            raise ClusterError(f"{self.bin_dir}/postgres --version says {version!r}: no PostgreSQL")
        return int(match[1])

    def _as_server(self, command: list[str]) -> list[str]:
        # At home here: the account's own passwords and services are for the machine's own cluster.
        command = ["env", f"HOME={self.inside(self.directory)}", *command]
        if self.root:
            here = f"--chdir={self.inside(self.directory)}"
            return inside_root(self.root, ["runuser", "-u", "postgres", "--", "env", here, *command])
        if self._server_user:
            return ["runuser", "-u", "postgres", "--", *command]
        return command

    def _give_to_server(self, path: Path) -> None:
        if self._server_user:
            os.chown(path, *self._server_user)


def _default_bin_dir(root: Path | None) -> Path:
    if root:
        found = sorted(root.glob("usr/lib/postgresql/*/bin"), key=lambda path: int(path.parent.name))
        if not found:
            raise ClusterError(f"no PostgreSQL in {root}: expected {root}/usr/lib/postgresql/N/bin")
        return Path("/") / found[-1].relative_to(root)
    pg_config = os.environ.get("PG_CONFIG") or "pg_config"
    try:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ClusterError(f"{pg_config} --bindir failed ({error}): install PostgreSQL or set PG_CONFIG") from error
    return Path(answer.stdout.strip())


def _server_user(root: Path | None) -> tuple[int, int] | None:
    """Whose the server's files are, (uid, gid), when that is not ourselves: the server refuses to run as
    root."""
    if os.geteuid() != 0:
        return None
    if root is None:
        entry = pwd.getpwnam("postgres")
        return entry.pw_uid, entry.pw_gid
    for line in (root / "etc/passwd").read_text().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == "postgres":
            return int(uid), int(gid)
    raise ClusterError(f"no user postgres in {root}/etc/passwd")


def _free_port() -> int:
    """A port below the range that outgoing connections take theirs from, so that none grabs it meanwhile."""
    while True:
        port = random.randint(16384, 32767)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _start_guard(data_dir: Path, directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, guard.__file__, str(data_dir), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _quoted(value: str) -> str:
    return value.replace("'", "''")
