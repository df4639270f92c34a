"""Assemble a script of the extension from sql/*.sql, with the Python package inside.

Usage: assemble.py audius_challenges--VERSION.sql
       assemble.py audius_challenges--OLD--VERSION.sql

In a new database the files of sql/ run in their order. Of these, 30 to 60 are code, which every upgrade replaces: so an
upgrade script is what upgrades/ says of schema and tables, step by step from OLD to VERSION, and then those files
again, with CREATE OR REPLACE for CREATE, and without the routines that OLD has to the letter: one that somebody is just
calling is best left alone (see docs/how-to/release.md).
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "audius_challenges"
STEPS = ROOT / "extension" / "upgrades"
RELEASES = ROOT / "extension" / "releases"

# From CREATE to the line that closes the body.
ROUTINE = re.compile(r"^CREATE (?:FUNCTION|PROCEDURE) .*?^\$\w+\$;\n", re.MULTILINE | re.DOTALL)

INSTALLING = '\\echo Use "CREATE EXTENSION audius_challenges CASCADE" to load this file. \\quit\n'
UPGRADING = """\
\\echo Use "ALTER EXTENSION audius_challenges UPDATE" to load this file. \\quit

-- The lock of a run: one that is under way ends first, as the version that it began as, and none begins before the end.
SELECT pg_catalog.pg_advisory_xact_lock(1633903724, 1);
"""


def read_package() -> dict[str, str]:
    """The package's sources by path, such as `audius_challenges/run.py`."""
    return {str(path.relative_to(PACKAGE.parent)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def discovery_privileges() -> str:
    """Rows of VALUES: each table of the discovery schema, and what running takes on it."""
    sys.path.insert(0, str(PACKAGE.parent))
    tables = importlib.import_module("audius_challenges.sources").TABLES.values()
    return ",\n                ".join(f"('{table.name}', '{table.privileges}')" for table in tables)


def discovery_tables() -> str:
    """Names of the tables of the discovery schema that challenges read."""
    sys.path.insert(0, str(PACKAGE.parent))
    tables = importlib.import_module("audius_challenges.sources").TABLES.values()
    return ", ".join(f"'{table.name}'" for table in tables if table.columns)


def own(names: str) -> str:
    """What the package lists by that name of the schema audius_challenges."""
    sys.path.insert(0, str(PACKAGE.parent))
    listed = getattr(importlib.import_module("audius_challenges.sources"), names)
    return ", ".join(f"audius_challenges.{name}" for name in listed)


def read_sql(pattern: str) -> list[str]:
    """The files of sql/ in their order, with what is made of the package in its place."""
    sources = read_package()
    places = {
        "@PACKAGE_DIGEST@": hashlib.sha256(repr(sources).encode()).hexdigest(),
        "@PACKAGE_SOURCES@": repr(sources),
        "@DISCOVERY_PRIVILEGES@": discovery_privileges(),
        "@DISCOVERY_TABLES@": discovery_tables(),
        "@EMPTIED_TABLES@": own("EMPTIED"),
        "@WITHHELD_ROUTINES@": own("WITHHELD"),
    }
    place = re.compile("|".join(places))
    return [
        place.sub(lambda found: places[found[0]], path.read_text()) for path in sorted((ROOT / "sql").glob(pattern))
    ]


def read_steps(old: str, new: str) -> list[str]:
    """What upgrades/ says from one version to another; exits if there is no way."""
    steps = {path.stem.split("--")[0]: path for path in STEPS.glob("*.sql")}
    texts = []
    while old != new:
        if old not in steps:
            sys.exit(f"no way from {old} to {new}: {STEPS}/{old}--….sql is missing")
        texts.append(steps[old].read_text())
        old = steps[old].stem.split("--")[1]
    return texts


def replacing(code: str, released: str) -> str:
    """The code as an upgrade runs it, where there is what was released."""
    code = ROUTINE.sub(lambda routine: "" if routine[0] in released else routine[0], code)
    return re.sub("^CREATE (?=FUNCTION|PROCEDURE|VIEW)", "CREATE OR REPLACE ", code, flags=re.MULTILINE)


def main() -> None:
    """Write the script, if its version is the package's."""
    target = Path(sys.argv[1])
    *old, new = target.stem.split("--")[1:]
    version = re.search(r'__version__ = "(.*)"', (PACKAGE / "__init__.py").read_text())
    if version is None or version[1] != new:
        sys.exit(f"{target.name} is not of the package's version, {version and version[1]}")
    if old:
        released = (RELEASES / f"audius_challenges--{old[0]}.sql").read_text()
        code = replacing("\n".join(read_sql("[3-6]*.sql")), released)
        parts = [UPGRADING, *read_steps(old[0], new), code]
    else:
        parts = [INSTALLING, *read_sql("*.sql")]
    target.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
