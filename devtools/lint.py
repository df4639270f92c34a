"""Every linter of the repository, each command shown so that it can be run by itself."""

import shlex
import subprocess
import sys
from pathlib import Path

from devtools import REPOSITORY

PYTHON_PATHS = (
    "python/audius_challenges",
    "python/audius_challenges_cli",
    "extension/assemble.py",
    "devtools",
    "tests",
    "bench",
)
SQL_PATHS = ("sql", "discovery", "tests/challenges", "tests/pgtap")


def commands() -> list[list[str]]:
    """The linters' commands, to be run in the repository's root."""
    bin_dir = Path(sys.executable).parent
    statements = ["sqlfluff", "lint", "--disable-progress-bar", "--config", "devtools/statements.sqlfluff"]
    programs = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", *_present(PYTHON_PATHS)],
        ["sqlfluff", "lint", "--disable-progress-bar", *_present(SQL_PATHS)],
        # What the package composes, planned by a server and left in build/statements for the line after it.
        ["python", "-m", "devtools", "explain"],
        [*statements, "build/statements"],
        # It cannot read PL/Python and would count each such function as unknown; nothing else is ignored. What it
        # checks of functions (search_path, SECURITY DEFINER), tests/pgtap/08_interface.sql checks of those, too.
        ["pgspot", "--ignore-lang=plpython3u", *_scripts(upgrades=False)],
        # CREATE OR REPLACE of functions (PS002) and views (PS015) is how an upgrade keeps the grants on them. It cannot
        # take over what somebody else put there: since PostgreSQL 14.5, a script replaces its extension's objects only.
        ["pgspot", "--ignore-lang=plpython3u", "--ignore=PS002", "--ignore=PS015", *_scripts(upgrades=True)],
    ]
    return [[_relative(bin_dir / program), *arguments] for program, *arguments in programs]


def run_lint() -> int:
    """Runs them all, also after one has failed; the number of those that failed."""
    failed = []
    for command in commands():
        print(f"+ {shlex.join(command)}", flush=True)
        if subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            failed.append(Path(command[0]).name)
    print(f"lint: {', '.join(failed)} failed" if failed else "lint: clean", flush=True)
    return len(failed)


def _present(paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if (REPOSITORY / path).exists()]


def _scripts(*, upgrades: bool) -> list[str]:
    scripts = sorted((REPOSITORY / "extension").glob("audius_challenges--*.sql"))
    return [f"extension/{path.name}" for path in scripts if (path.stem.count("--") == 2) == upgrades]


def _relative(program: Path) -> str:
    return str(program.relative_to(REPOSITORY)) if program.is_relative_to(REPOSITORY) else str(program)
