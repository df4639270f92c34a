"""Assemble the extension's script: sql/*.sql in their order, with the Python package inside.

Usage: assemble.py audius_challenges--VERSION.sql
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "audius_challenges"
HEADER = '\\echo Use "CREATE EXTENSION audius_challenges CASCADE" to load this file. \\quit\n'


def read_package() -> dict[str, str]:
    """The package's sources by path, such as `audius_challenges/run.py`."""
    return {str(path.relative_to(PACKAGE.parent)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def as_literal(sources: dict[str, str]) -> str:
    """A Python dict of the sources, a line of it for a line of them."""
    lines = ["{"]
    for path, source in sources.items():
        lines.append(f"    {path!r}: (")
        lines.extend(f"        {line!r}" for line in source.splitlines(keepends=True))
        lines.append("        ''")
        lines.append("    ),")
    return "\n".join([*lines, "}"])


def assemble() -> str:
    """The whole script."""
    sources = read_package()
    digest = hashlib.sha256(repr(sources).encode()).hexdigest()
    parts = [path.read_text() for path in sorted((ROOT / "sql").glob("*.sql"))]
    script = HEADER + "\n" + "\n".join(parts)
    return script.replace("@PACKAGE_DIGEST@", digest).replace("@PACKAGE_SOURCES@", as_literal(sources))


def main() -> None:
    """Write the script, if its version is the package's."""
    target = Path(sys.argv[1])
    version = re.search(r'__version__ = "(.*)"', (PACKAGE / "__init__.py").read_text())
    if version is None or f"--{version[1]}.sql" not in target.name:
        sys.exit(f"{target.name} is not of the package's version, {version and version[1]}")
    target.write_text(assemble())


if __name__ == "__main__":
    main()
