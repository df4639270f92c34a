"""The release archive as PGXN takes it and the Debian package: built, installed, tried and removed on machines that
have nothing of this repository but the archive, and no network; and the pages that say so."""

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools import REPOSITORY
from devtools.debian_root import SUITES
from devtools.scratch_root import ScratchRoot, scratch_root
from tests.pages import console_commands, shape, sql_blocks
from tests.sessions import RUN_ORDER

# What docs/how-to/install.md has installed before, for all three ways.
PACKAGES = (
    "build-essential",
    "debhelper",
    "libtap-parser-sourcehandler-pgtap-perl",
    "lintian",
    "pgxnclient",
    "postgresql-server-dev-all",
    "python3-jsonschema",
    "sudo",
    "unzip",
)

pytestmark = pytest.mark.timeout(1800)  # the first makes roots of Debian, where there are none yet
LEFT_OUT = {".gitattributes", ".gitignore"}
"""What the archive does not have, beside .ci/."""
BUILDER = "builder"
"""An account that may use sudo and is superuser of the server."""
HOME = f"/home/{BUILDER}"
RUN = "SELECT count(*), string_agg(DISTINCT status, ', ') FROM reconcile_challenges()"


@pytest.fixture(scope="module")
def archive() -> Path:
    """The archive of the last commit."""
    subprocess.run(["make", "dist"], cwd=REPOSITORY, check=True)
    version = json.loads((REPOSITORY / "META.json").read_text())["version"]
    return REPOSITORY / "dist" / f"audius_challenges-{version}.zip"


@pytest.fixture(scope="module", params=SUITES)
def major(request: pytest.FixtureRequest) -> Any:
    """Each supported PostgreSQL."""
    return request.param


@pytest.fixture(scope="module")
def machine(major: int, archive: Path) -> Iterator[ScratchRoot]:
    """A machine with this PostgreSQL running, on which somebody has the archive, packed and unpacked."""
    with scratch_root(major, PACKAGES) as machine:
        # The cached root that it lies over may have the build that other tests use.
        machine.run("rm -f /usr/share/postgresql/*/extension/audius_challenges*")
        machine.run(f"useradd --create-home --shell /bin/bash {BUILDER}")
        machine.run(f"echo '{BUILDER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{BUILDER}")
        machine.run(f"pg_conftool {major} main set fsync off && pg_ctlcluster {major} main start")
        machine.run(f"createuser --superuser {BUILDER}", user="postgres")
        shutil.copy(archive, machine.file(HOME))
        machine.run(f"unzip -q {archive.name}", user=BUILDER)
        yield machine


def extension_files(machine: ScratchRoot) -> list[str]:
    """The extension's files and the package's that are installed, wherever they are."""
    found = machine.run(f"find /usr /etc /var -xdev -name '*audius*' -not -path '/var/log/*' -not -name {BUILDER}")
    return sorted(found.splitlines())


def create_discovery(machine: ScratchRoot, archive: Path, name: str) -> None:
    """A database with the discovery schema."""
    machine.run(f"createdb {name} && psql -Xq -d {name} -f {archive.stem}/discovery/schema.sql", user=BUILDER)


def follow_console(machine: ScratchRoot, major: int, archive: Path, page: Path) -> None:
    """Runs the page's commands in the unpacked archive, on this machine's PostgreSQL."""
    for command in console_commands(page):
        here = re.sub(r"\b15\b", str(major), command)  # as the page says
        machine.run(f"cd {archive.stem}\n{here}", user=BUILDER)


def psql(machine: ScratchRoot, database: str, *statements: str) -> list[str]:
    """Runs statements as a superuser; the lines that they print, unaligned, with notices."""
    commands = " ".join(f'-c "{statement}"' for statement in statements)
    return machine.run(f"psql -XAtq -v ON_ERROR_STOP=1 -d {database} {commands}", user=BUILDER).splitlines()


def test_the_archive_is_the_last_commit_in_one_directory(archive: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    committed = {name for name in listed.stdout.splitlines() if not name.startswith(".ci/")} - LEFT_OUT
    with zipfile.ZipFile(archive) as content:
        packed = {name for name in content.namelist() if not name.endswith("/")}
    assert packed == {f"{archive.stem}/{name}" for name in committed}


def test_meta_json_is_valid(machine: ScratchRoot, archive: Path) -> None:
    schema = REPOSITORY / "tests" / "deployment" / "pgxn-meta.schema.json"
    shutil.copy(schema, machine.file(HOME))
    machine.run(f"python3 -W ignore -m jsonschema -i {archive.stem}/META.json {schema.name}", user=BUILDER)


def test_pgxn_installs_loads_checks_and_removes_it(machine: ScratchRoot, major: int, archive: Path) -> None:
    printed = machine.run(f"pgxn install --sudo sudo ./{archive.name}", user=BUILDER)
    as_user, as_root = printed.split("installing extension")
    assert "assemble.py" in as_user
    assert "assemble.py" not in as_root
    extension_dir = f"/usr/share/postgresql/{major}/extension"
    version = archive.stem.rpartition("-")[2]
    added = set(extension_files(machine))
    assert f"{extension_dir}/audius_challenges.control" in added
    assert f"{extension_dir}/audius_challenges--{version}.sql" in added
    assert {Path(path).parent for path in added} == {Path(extension_dir)}

    create_discovery(machine, archive, "by_pgxn")
    psql(machine, "by_pgxn", "CREATE EXTENSION plpython3u")
    machine.run(f"pgxn load --yes --dbname by_pgxn ./{archive.name}", user=BUILDER)
    assert psql(machine, "by_pgxn", RUN) == [f"{len(RUN_ORDER)}|inactive, ok"]
    assert "Result: PASS" in machine.run(f"pgxn check --dbname postgres ./{archive.name}", user=BUILDER)
    machine.run("dropdb by_pgxn", user=BUILDER)

    machine.run(f"pgxn uninstall --yes --sudo sudo ./{archive.name}", user=BUILDER)
    assert extension_files(machine) == []


def test_a_debian_package_is_built_installed_tried_and_removed(machine: ScratchRoot, major: int, archive: Path) -> None:
    package = f"postgresql-{major}-audius-challenges"
    version = archive.stem.rpartition("-")[2]
    machine.run(f"cd {archive.stem} && make deb", user=BUILDER)
    built = machine.run(f"ls {archive.stem}/dist", user=BUILDER).split()
    assert built == [f"{package}_{version}_all.deb"]
    fields = ("Package", "Version", "Architecture", "Recommends")
    described = machine.run(f"dpkg-deb --field {archive.stem}/dist/{built[0]} {' '.join(fields)}", user=BUILDER)
    assert described.splitlines() == [
        f"Package: {package}",
        f"Version: {version}",
        "Architecture: all",
        f"Recommends: postgresql-{major}-cron",
    ]
    depends = machine.run(f"dpkg-deb --field {archive.stem}/dist/{built[0]} Depends", user=BUILDER)
    assert f"postgresql-plpython3-{major}" in depends.strip().split(", ")
    assert machine.run(f"lintian --fail-on error,warning --info {archive.stem}/dist/{built[0]}", user=BUILDER) == ""

    machine.run(f"sudo apt-get install --yes ./{archive.stem}/dist/{built[0]}", user=BUILDER)
    extension_dir = f"/usr/share/postgresql/{major}/extension"
    assert f"{extension_dir}/audius_challenges--{version}.sql" in extension_files(machine)
    create_discovery(machine, archive, "by_dpkg")
    psql(machine, "by_dpkg", "CREATE EXTENSION audius_challenges CASCADE")
    assert psql(machine, "by_dpkg", RUN) == [f"{len(RUN_ORDER)}|inactive, ok"]
    assert "Result: PASS" in machine.run(f"cd {HOME}/{archive.stem} && debian/tests/installcheck")
    machine.run("dropdb by_dpkg", user=BUILDER)

    machine.run(f"dpkg --purge {package}")
    assert extension_files(machine) == []


def test_install_md_and_uninstall_md_work_as_written(machine: ScratchRoot, major: int, archive: Path) -> None:
    how_to = REPOSITORY / "docs" / "how-to"
    create_discovery(machine, archive, "discovery")
    machine.run(f"cp {archive.name} {archive.stem}/", user=BUILDER)

    for page in (how_to / "install.md", how_to / "uninstall.md"):
        if page.name == "install.md":
            follow_console(machine, major, archive, page)
        for block in sql_blocks(page, "discovery"):
            machine.file(f"{HOME}/block.sql").write_text(block.source)
            printed = machine.run("psql -Xd discovery -f block.sql", user=BUILDER)
            assert sorted(shape(printed)) == sorted(shape(block.shown)), f"{page.name}, line {block.line}: {printed}"
        if page.name == "uninstall.md":
            follow_console(machine, major, archive, page)
    assert extension_files(machine) == []
