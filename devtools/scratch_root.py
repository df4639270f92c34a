"""A Debian with PostgreSQL to install into, as a machine of its own: what happens there is gone afterwards.

    with scratch_root(17, packages=("sudo",)) as machine:
        machine.run("pg_ctlcluster 17 main start")
        print(machine.run("psql -Xc 'SELECT 1'", user="postgres"))

It lies by an overlay over the cached root of ``debian_root``, and over a cached layer that has the extra packages. Its
processes and mounts are in namespaces of their own and end with it. Needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from devtools.debian_root import DebianRootError, debian_root

SHARED_MEMORY = "/dev/shm"  # noqa: S108


class ScratchRootError(RuntimeError):
    """A command failed inside; the message holds the command and what it printed."""


def scratch_root(major: int, packages: tuple[str, ...] = ()) -> ScratchRoot:
    """A machine with PostgreSQL ``major``, in the Debian that has it, with these Debian packages besides.

    Raises DebianRootError when the root cannot be made or used here.
    """
    base = debian_root(major).path
    return ScratchRoot([_layer(base, packages), base] if packages else [base])


class ScratchRoot:
    """One such machine, running from construction to `close` (or the end of ``with``). Made by `scratch_root`.

    layers: directories that it begins with, an upper one before what it lies on. online: with this machine's network
    instead of one of its own, in which there is nobody.
    """

    def __init__(self, layers: list[Path], *, online: bool = False) -> None:
        # Beside the root, since the two directories of an overlay must be on one file system that is no overlay.
        self._directory = Path(tempfile.mkdtemp(prefix="scratch-", dir=layers[-1].parent))
        try:
            self._machine = _start(self._directory, layers, online)
            self._init = _first_process(self._machine)
        except BaseException:
            shutil.rmtree(self._directory)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, script: str, user: str = "root") -> str:
        """Runs a shell script inside as this user, in the user's home; returns what it printed, both streams.

        Raises ScratchRootError when it ends with another status than 0.
        """
        inside = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--net", "--root", "--wd"]
        command = [*inside, "runuser", "--login", user, "-c", script]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            check=False,
        )
        if done.returncode != 0:
            raise ScratchRootError(f"{script}\nended with status {done.returncode}:\n{done.stdout}")
        return done.stdout

    def file(self, path: str) -> Path:
        """Where a file inside, by its absolute path there, is for us outside."""
        return Path(f"/proc/{self._init}/root") / path.lstrip("/")

    def close(self) -> None:
        """Ends every process inside and forgets what was written. Harmless when called twice."""
        self._end()
        shutil.rmtree(self._directory, ignore_errors=True)

    def keep(self, path: Path) -> None:
        """Ends every process inside, and makes a layer at ``path`` of what was written."""
        self._end()
        (self._directory / "upper").rename(path)

    def _end(self) -> None:
        if self._machine.poll() is None:
            self._machine.kill()
            self._machine.communicate()
        while Path(f"/proc/{self._init}").exists():  # it ends last of those inside
            time.sleep(0.01)


def _start(directory: Path, layers: list[Path], online: bool) -> subprocess.Popen[str]:
    """Mounts the layers with what is written on top in ``directory``, and starts the process that the namespaces
    live with. It prints a line when all is mounted."""
    for name in ("upper", "work", "root"):
        (directory / name).mkdir()
    upper, work, root = (shlex.quote(str(directory / name)) for name in ("upper", "work", "root"))
    lower = shlex.quote(":".join(str(layer) for layer in layers))
    script = f"""
        {"" if online else "ip link set lo up"}
        mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {root}
        mount -t proc proc {root}/proc
        mount -t tmpfs tmpfs {root}{SHARED_MEMORY}
        echo "127.0.1.1 $(uname -n)" >>{root}/etc/hosts
        exec chroot {root} sh -c 'echo mounted && exec sleep infinity'
    """
    net = [] if online else ["--net"]
    machine = subprocess.Popen(
        ["unshare", "--mount", "--pid", *net, "--fork", "--kill-child", "sh", "-ec", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
    )
    assert machine.stdout
    line = machine.stdout.readline()
    if line != "mounted\n":
        machine.kill()
        raise DebianRootError(f"cannot mount an overlay over {layers[0]}: {line}{machine.communicate()[0]}")
    return machine


def _first_process(machine: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text()
    return int(children.split()[0])


def _layer(base: Path, packages: tuple[str, ...]) -> Path:
    """The directory with what installing these packages adds to the root, made now if it is not in the cache."""
    mark = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    path = base.with_name(f"{base.name}-{mark}")
    with path.with_suffix(".lock").open("w") as lock:  # two test runs at once make one layer
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _make_layer(base, path, packages)
    return path


def _make_layer(base: Path, path: Path, packages: tuple[str, ...]) -> None:
    install = f"apt-get install --yes --no-install-recommends {shlex.join(packages)}"
    print(f"+ in a layer over {base}: {install}", file=sys.stderr, flush=True)
    with ScratchRoot([base], online=True) as machine:
        machine.run(f"apt-get update && DEBIAN_FRONTEND=noninteractive {install} && apt-get clean")
        machine.keep(path)


def _environment() -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LC_ALL": "C.UTF-8"}
