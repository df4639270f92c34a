"""Another Debian in a directory, so that every supported version of PostgreSQL is tested on one machine.

    with Cluster(root=root_of(17)) as cluster: ...

PostgreSQL 15 comes with Debian 12, 17 with Debian 13, 18 with what will be Debian 14. A root is made once by
mmdebstrap (a minute from the mirror, 1.5 GB) and kept in ``$AUDIUS_CHALLENGES_CACHE``, by default
``~/.cache/audius_challenges``. Needs root. It has the PostgreSQL of the Debian before, too, as a machine has that came
from there, so that moves between the two are tested in it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devtools import REPOSITORY

# Debian's release for each major version of PostgreSQL that the extension supports.
SUITES = {15: "bookworm", 17: "trixie", 18: "forky"}
# Not released yet. Debian signs it for a few days only, and a mirror that is weeks behind still serves for tests.
TESTING = "forky"
PACKAGES = (
    "postgresql-{major}",
    "postgresql-plpython3-{major}",
    "postgresql-{major}-cron",
    "postgresql-{major}-pgtap",
    "postgresql-server-dev-{major}",
    "make",
    "python3",
)
# A server of the release before that stays beside the new one, to be upgraded from.
EARLIER = {17: 15, 18: 17}
EARLIER_PACKAGES = ("postgresql-{major}", "postgresql-plpython3-{major}", "postgresql-{major}-cron")
# What the server needs of the machine: /proc to see processes, /dev/shm for shared memory.
BIND_MOUNTS = ("/proc", "/dev/shm")  # noqa: S108


class DebianRootError(RuntimeError):
    """The root cannot be made or used here; the message says what is missing."""


@dataclass(frozen=True)
class DebianRoot:
    """A directory with a Debian and its PostgreSQL.

    major: of the server that belongs to this Debian. The earlier one, where there is one, is in `EARLIER`.
    """

    path: Path
    major: int

    @property
    def pg_config(self) -> str:
        """Path of pg_config, as seen inside."""
        return f"{self.bin_dir(self.major)}/pg_config"

    def bin_dir(self, major: int) -> Path:
        """Where the programs of a server are, as seen inside."""
        return Path(f"/usr/lib/postgresql/{major}/bin")


def debian_root(major: int, *, extra: tuple[str, ...] = ()) -> DebianRoot:
    """The root with PostgreSQL ``major``, one of `SUITES`, made now if it is not in the cache.

    extra: further Debian packages; a root with these is another root.
    Raises DebianRootError when the version has no Debian, we are not root, or mmdebstrap is missing or fails.
    """
    if major not in SUITES:
        raise DebianRootError(f"no Debian root for PostgreSQL {major}: known are {sorted(SUITES)}")
    if why_not := unavailable():
        raise DebianRootError(why_not)
    packages = [package.format(major=major) for package in (*PACKAGES, *extra)]
    suites = [SUITES[major]]
    if earlier := EARLIER.get(major):
        packages += [package.format(major=earlier) for package in EARLIER_PACKAGES]
        suites.append(SUITES[earlier])
    mark = hashlib.sha256(repr((packages, suites)).encode()).hexdigest()[:8]
    path = cache() / f"{SUITES[major]}-{mark}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):  # two test runs at once make one root
        if not path.exists():
            _make(path, SUITES[major], packages, [source for suite in suites for source in sources(suite)])
    return DebianRoot(path, major)


def installed_root(major: int, *, extra: tuple[str, ...] = ()) -> DebianRoot:
    """The root with PostgreSQL ``major``, and the extension of this repository installed for all its servers.

    extra: as for `debian_root`. Raises DebianRootError as `debian_root` and `install_extension` do.
    """
    root = debian_root(major, extra=extra)
    install_extension(root)
    return root


def root_of(major: int) -> Path | None:
    """Where PostgreSQL ``major`` runs: an `installed_root`, or None where it is this machine's own.

    Raises DebianRootError as `installed_root` does.
    """
    return None if major == machine_major() else installed_root(major).path


def unavailable() -> str | None:
    """Why no root can be made or used here, or None if nothing is in the way."""
    if os.geteuid() != 0:
        return "a second Debian in a directory needs root (chroot and mount): run this as root"
    for program in ("mmdebstrap", "mount"):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install {program}"
    mount = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"no mount namespace here: {mount.stderr.strip()}" if mount.returncode else None


def install_extension(root: DebianRoot) -> None:
    """Builds the extension and installs it into the root, for all its servers, by ``make install`` inside.

    Raises DebianRootError with make's output when that fails.
    """
    # A file that is the same already stays as it is: another test run may be at work with it.
    command = ["make", "-C", "/mnt/extension", "install", f"PG_CONFIG={root.pg_config}", "INSTALL=install -C"]
    with _locked(root.path):
        _run_inside(root, command)
        if earlier := EARLIER.get(root.major):
            # Which has no development packages, nor needs them to have the same files.
            _run_inside(root, [*command, f"datadir=/usr/share/postgresql/{earlier}"])


def inside_root(root: Path, command: list[str], binds: dict[Path, str] | None = None) -> list[str]:
    """The command that runs ``command`` inside the root. Its mounts are in a namespace of their own, so
    they are there as long as the command and its children are, and never left behind. ``binds``: more
    directories to show inside, by the path that they have there."""
    mounts = [(source, root / source.lstrip("/")) for source in BIND_MOUNTS]
    mounts += [(str(source), root / target.lstrip("/")) for source, target in (binds or {}).items()]
    lines = [f"mount --bind {shlex.quote(source)} {shlex.quote(str(target))}" for source, target in mounts]
    lines.append(f'exec chroot {shlex.quote(str(root))} "$@"')
    return ["unshare", "--mount", "sh", "-ec", "\n".join(lines), "sh", *command]


def machine_major() -> int:
    """The version of PostgreSQL whose pg_config this machine has."""
    pg_config = os.environ.get("PG_CONFIG") or "pg_config"
    version = subprocess.run([pg_config, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"PostgreSQL (\d+)", version)
    if match is None:
        raise DebianRootError(f"{pg_config} --version says {version!r}: no PostgreSQL")
    return int(match[1])


def cache() -> Path:
    """Where what takes long to make is kept: ``$AUDIUS_CHALLENGES_CACHE``, or ``~/.cache/audius_challenges``."""
    given = os.environ.get("AUDIUS_CHALLENGES_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "audius_challenges").resolve()


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_inside(root: DebianRoot, command: list[str]) -> None:
    done = subprocess.run(
        inside_root(root.path, command, binds={REPOSITORY: "/mnt"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=_plain_environment(),
        check=False,
    )
    if done.returncode != 0:
        raise DebianRootError(f"{shlex.join(command)} in {root.path} failed:\n{done.stdout}{done.stderr}")


def sources(suite: str) -> list[str]:
    """apt's lines for a Debian release, its updates and its security updates, from where this machine has its own.

    Raises DebianRootError where apt's lists do not tell.
    """
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(SITE)|$(CODENAME)", "Created-By: Packages"]
    targets = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    sites: dict[str, str] = {}
    for line in targets.splitlines():
        origin, site, codename = line.split("|")
        release, dash, branch = codename.partition("-")
        if origin == "Debian" and release in SUITES.values() and branch in ("", "updates", "security"):
            sites.setdefault(dash + branch, site)
    if "" not in sites:
        raise DebianRootError("apt's lists name no mirror of Debian here: apt-get update, then try again")
    # Updates come from where the release does, if this machine takes none itself; security updates from its own site.
    sites.setdefault("-updates", sites[""])
    options = "[check-valid-until=no] " if suite == TESTING else ""
    return [f"deb {options}{site} {suite}{branch} main" for branch, site in sorted(sites.items())]


def _make(path: Path, suite: str, packages: list[str], lines: list[str]) -> None:
    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    include = f"--include={','.join(packages)}"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", include, suite, str(unfinished), *lines]
    print(f"+ {shlex.join(command)}", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise DebianRootError(f"{shlex.join(command)} failed:\n{done.stderr}")
    unfinished.rename(path)


def _plain_environment() -> dict[str, str]:
    # make's own variables (MAKEFLAGS, MAKELEVEL) would tell the inner make about the outer one's jobs.
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8"}


if __name__ == "__main__":
    print(debian_root(int(sys.argv[1])).path)
