"""The version is one, wherever it is written down."""

import json
import re
import tomllib
from typing import Any

import pytest

from devtools import REPOSITORY
from devtools.debian_root import SUITES


def found(pattern: str, file: str) -> str:
    """What the pattern's group matches first in a file."""
    match = re.search(pattern, (REPOSITORY / file).read_text(), re.MULTILINE)
    assert match, f"{file} has nothing that matches {pattern}"
    return match[1]


@pytest.fixture
def version() -> str:
    """What CREATE EXTENSION installs, by the control file."""
    return found(r"^default_version = '(.*)'$", "extension/audius_challenges.control")


@pytest.fixture
def meta() -> Any:
    """What PGXN is told."""
    return json.loads((REPOSITORY / "META.json").read_text())


def test_pgxn_is_told_the_version_of_the_control_file(version: str, meta: Any) -> None:
    assert meta["version"] == version
    assert {name: (item["version"], item["file"]) for name, item in meta["provides"].items()} == {
        "audius_challenges": (version, f"extension/audius_challenges--{version}.sql")
    }


def test_the_debian_package_has_the_version_of_the_control_file(version: str) -> None:
    assert found(r"\A\S+ \((.*?)\) ", "debian/changelog") == version


def test_the_python_package_has_the_version_of_the_control_file(version: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "audius_challenges.__version__"}
    assert found(r'^__version__ = "(.*)"$', "python/audius_challenges/__init__.py") == version


def test_the_command_has_the_version_of_the_control_file(version: str) -> None:
    assert found(r'^__version__ = "(.*)"$', "python/audius_challenges_cli/__init__.py") == version


def test_the_changelog_ends_with_the_version_of_the_control_file(version: str) -> None:
    assert found(r"^## (\d\S*)", "CHANGELOG.md") == version


def test_the_files_that_pgxn_is_told_of_are_there(meta: Any) -> None:
    for item in meta["provides"].values():
        assert (REPOSITORY / item["docfile"]).is_file()


# PostgreSQL's versions


def test_a_package_is_built_for_each_supported_postgresql() -> None:
    lines = (REPOSITORY / "debian" / "pgversions").read_text().splitlines()
    assert [int(line) for line in lines if not line.startswith("#")] == sorted(SUITES)


def test_pgxn_is_told_the_earliest_supported_postgresql(meta: Any) -> None:
    assert meta["prereqs"]["runtime"]["requires"]["PostgreSQL"] == f"{min(SUITES)}.0.0"


@pytest.mark.parametrize("file", ["README.md", "docs/how-to/install.md", "docs/how-to/run-the-image.md", "Dockerfile"])
def test_who_reads_this_is_told_each_supported_postgresql(file: str) -> None:
    *others, last = sorted(SUITES)
    assert found(r"PostgreSQL (\d\d(?:, \d\d)* or \d\d)\b", file) == f"{', '.join(map(str, others))} or {last}"
