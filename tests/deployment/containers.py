"""The image built by buildah and containers of it, as Docker builds and runs them, where there is neither a Docker
daemon nor a registry: so its base is a stand-in, Debian's PostgreSQL in the shape of the official image.

Needs root. The stand-in is made once (a minute) and kept, with buildah's storage, in ``$AUDIUS_CHALLENGES_CACHE``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from devtools import REPOSITORY
from devtools.debian_root import SUITES, cache, sources

STAND_IN = Path(__file__).parent / "stand_in"
PACKAGES = "postgresql-{major},locales"
INIT_SCRIPTS = "/docker-entrypoint-initdb.d"
SOCKETS = "/run/postgresql"
STOP_SECONDS = 60

# Namespaces of its own but for users and cgroups, as a container has: the command is process 1, sees no process,
# network or shared memory of the machine, and dies with unshare, which dies with us.
NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts")
ENTER = ("setpriv", "--pdeathsig=KILL", "unshare", *NAMESPACES, "--fork", "--kill-child=KILL")
# The image below, and above it a file system in memory that takes what is written and is gone afterwards.
PREPARE_ROOT = """
image=$1 scratch=$2; shift 2
mount -t tmpfs container "$scratch"
cd "$scratch"
mkdir above work root
mount -t overlay container -o "lowerdir=$image,upperdir=$scratch/above,workdir=$scratch/work" root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs shm root/dev/shm
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "root$2"; else touch "root$2"; fi
    mount --bind -o "$3" "$1" "root$2"
    shift 3
done
shift
exec chroot root "$@"
"""


@dataclass(frozen=True)
class Mount:
    """What ``docker run --volume`` takes: a file or directory of ours, its path inside, whether it is read-only."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Image:
    """A built image: where its files are, and its configuration in Docker's own words."""

    root: Path
    configuration: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every container of the image has."""
        return dict(variable.split("=", maxsplit=1) for variable in self.configuration["Env"])

    @property
    def volume(self) -> str:
        """Its VOLUME, which is one."""
        (volume,) = self.configuration["Volumes"]
        return str(volume)

    @property
    def health_check(self) -> list[str]:
        """The command of its HEALTHCHECK."""
        command: list[str]
        kind, *command = self.configuration["Healthcheck"]["Test"]
        assert kind == "CMD"
        return command


class Container:
    """A container of an image, by the image's own entrypoint, command, environment and stop signal.

    environment: as ``--env``; arguments: what stands behind the image's name in ``docker run``. The volume with the
    data and the sockets are directories of ours, and the volume stays for the next `start`. It is mounted where the
    image has its VOLUME, or at a PGDATA that is outside of that.
    """

    def __init__(
        self,
        image: Image,
        environment: Mapping[str, str],
        *,
        arguments: Sequence[str] = (),
        mounts: Sequence[Mount] = (),
        directory: Path,
    ) -> None:
        self.image = image
        self.environment = image.environment | dict(environment)
        self.arguments = list(arguments) or image.configuration["Cmd"]
        data, volume = Path(self.environment["PGDATA"]), Path(image.volume)
        if not data.is_relative_to(volume):
            volume = data
        self.data_dir = directory / "volume" / data.relative_to(volume)
        self.socket_dir = directory / "socket"
        self.log_file = directory / "log"
        self._scratch = directory / "scratch"
        for path in (self.data_dir, self.socket_dir, self._scratch):
            path.mkdir(parents=True)
        ours = [Mount(directory / "volume", str(volume), False), Mount(self.socket_dir, SOCKETS, False)]
        self._mounts = [*mounts, *ours]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it and returns at once, as ``docker run --detach`` does."""
        mounts = [(str(one.source), one.target, "ro" if one.read_only else "rw") for one in self._mounts]
        command = [*ENTER, "sh", "-euc", PREPARE_ROOT, "sh", str(self.image.root), str(self._scratch)]
        command += [word for mount in mounts for word in mount]
        command += ["--", *self.image.configuration["Entrypoint"], *self.arguments]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    def stop(self) -> None:
        """Stops it as ``docker stop`` does, and waits for its end; an exit code that is not 0 is a failure."""
        os.kill(self._first_process(), getattr(signal, self.image.configuration["StopSignal"]))
        assert self.wait(STOP_SECONDS) == 0, self.log()

    def kill(self) -> None:
        """Ends it at once, as ``docker kill`` does. Harmless when it has ended or was never started."""
        if self._process and self._process.poll() is None:
            with contextlib.suppress(ValueError, FileNotFoundError):  # no process 1 yet, or no more
                os.kill(self._first_process(), signal.SIGKILL)  # and with it all the others
                self._process.wait(STOP_SECONDS)
            self._process.kill()
            self._process.wait()

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended; subprocess.TimeoutExpired if that takes longer."""
        assert self._process
        return self._process.wait(seconds)

    def execute(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command in it, as ``docker exec`` does, as root and with the container's environment."""
        enter = ["nsenter", f"--target={self._first_process()}", *NAMESPACES, "--root", "--wdns=/"]
        return subprocess.run(
            [*enter, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment | dict(environment or {}),
            check=False,
        )

    def health(self) -> tuple[int, str]:
        """Exit code and words of the image's health check."""
        done = self.execute(*self.image.health_check)
        return done.returncode, done.stdout.strip()

    def connect(self, database: str, user: str = "postgres", password: str | None = None) -> psycopg.Connection[Any]:
        """A connection through its socket; the caller closes it."""
        return psycopg.connect(
            host=str(self.socket_dir), port=5432, dbname=database, user=user, password=password, autocommit=True
        )

    def log(self) -> str:
        """What it has printed, as ``docker logs`` shows it."""
        return self.log_file.read_text(errors="replace")

    def wait_for_server(self, seconds: float = 60) -> None:
        """Waits until the initialisation is over, so that the server itself is process 1, and lets clients in."""
        deadline = time.monotonic() + seconds
        while not (self.is_running("postgres") and self.execute("pg_isready", "--quiet").returncode == 0):
            assert self._process
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def is_running(self, command: str | None = None) -> bool:
        """Whether its process 1 is there, in a root of its own, and is this command (by default the one that the
        arguments begin with)."""
        try:
            pid = self._first_process()
            is_inside = not Path(f"/proc/{pid}/root").samefile("/")
            return is_inside and Path(f"/proc/{pid}/comm").read_text().strip() == (command or self.arguments[0])
        except (OSError, ValueError):  # unshare has no child yet
            return False

    def _first_process(self) -> int:
        """The id, out here, of its process 1."""
        assert self._process
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


@contextlib.contextmanager
def built_image(major: int, dockerfile_directory: Path = REPOSITORY) -> Iterator[Image]:
    """The image of a directory with a Dockerfile whose argument BASE is the official image, on the stand-in for this
    PostgreSQL. Built now, gone afterwards; other test runs wait meanwhile."""
    storage = cache() / "image"
    storage.mkdir(parents=True, exist_ok=True)
    with (storage / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _buildah("rm", "--all")  # of a test run that was killed
        base = _stand_in(major, storage)
        name = "localhost/audius-challenges"
        _buildah("bud", "--format=docker", f"--tag={name}", f"--build-arg=BASE={base}", str(dockerfile_directory))
        container = _buildah("from", name).strip()
        try:
            inspected = json.loads(_buildah("inspect", "--type=image", name))
            yield Image(Path(_buildah("mount", container).strip()), inspected["Docker"]["config"])
        finally:
            _buildah("rm", container)
            _buildah("rmi", name)


def official_data(major: int) -> tuple[str, str]:
    """PGDATA and VOLUME of the official image: from 18 on one volume has the clusters of all versions."""
    if major < 18:
        return "/var/lib/postgresql/data", "/var/lib/postgresql/data"
    return f"/var/lib/postgresql/{major}/docker", "/var/lib/postgresql"


def _stand_in(major: int, storage: Path) -> str:
    """The name of the stand-in for the official image, made now unless it is in the storage."""
    data, volume = official_data(major)
    arguments = [f"--build-arg={one}" for one in (f"MAJOR={major}", f"DATA={data}", f"DATA_VOLUME={volume}")]
    packages = PACKAGES.format(major=major)
    mark = hashlib.sha256(repr((packages, arguments)).encode())
    for path in sorted(STAND_IN.iterdir()):
        mark.update(path.read_bytes())
    name = f"localhost/stand-in:{mark.hexdigest()[:12]}"
    if not _buildah("images", "--quiet", "--filter", f"reference={name}"):
        with tempfile.TemporaryDirectory(dir=storage) as context:
            archive = Path(context) / "base.tar"
            suite = SUITES[major]
            mmdebstrap = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"]
            _run(*mmdebstrap, suite, str(archive), *sources(suite))
            for source in STAND_IN.iterdir():
                (Path(context) / source.name).write_bytes(source.read_bytes())
                (Path(context) / source.name).chmod(source.stat().st_mode)
            _buildah("bud", "--format=docker", f"--tag={name}", *arguments, context)
    return name


def _buildah(command: str, *arguments: str) -> str:
    storage = cache() / "image"
    options = ["--storage-driver=vfs", f"--root={storage}/storage", f"--runroot={storage}/run"]
    return _run("buildah", *options, command, *arguments)


def _run(*command: str) -> str:
    print(f"+ {' '.join(command)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"BUILDAH_ISOLATION": "chroot"},
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}{done.stderr}"
    return done.stdout
