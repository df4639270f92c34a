"""The texts that the extension sends to clients are plain ASCII, whatever a client's encoding and font are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools import REPOSITORY

PACKAGE = sorted((REPOSITORY / "python" / "audius_challenges").rglob("*.py"))
SCRIPTS = sorted([*(REPOSITORY / "sql").glob("*.sql"), *(REPOSITORY / "extension" / "upgrades").glob("*.sql")])

SQL_TOKEN = re.compile(r"--[^\n]*|'(?:[^']|'')*'")


def python_strings(source: str) -> Iterator[tuple[int, str]]:
    """The string literals with their lines, docstrings aside; of an f-string, its constant parts."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def sql_strings(source: str) -> Iterator[tuple[int, str]]:
    """The string literals with their lines, comments aside."""
    for token in SQL_TOKEN.finditer(source):
        if token[0].startswith("'"):
            yield source.count("\n", 0, token.start()) + 1, token[0]


def beyond_ascii(strings: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(line, text) for line, text in strings if not text.isascii()]


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_strings_of_the_package_are_ascii(path: Path) -> None:
    assert beyond_ascii(python_strings(path.read_text())) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_strings_of_the_scripts_are_ascii(path: Path) -> None:
    assert beyond_ascii(sql_strings(path.read_text())) == []


def test_what_is_beyond_ascii_is_found() -> None:
    python = '"""A \u2192 b."""\nX = 1\n"""C \u2192 d."""\nraise ValueError(f"{X} \u2192 y")\n'
    assert beyond_ascii(python_strings(python)) == [(4, " \u2192 y")]
    sql = "-- It's a \u2192 b.\nRAISE EXCEPTION 'c \u2192 ''d''';\n"
    assert beyond_ascii(sql_strings(sql)) == [(2, "'c \u2192 ''d'''")]
