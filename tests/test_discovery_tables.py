"""The reference page of the discovery tables says what `sources.TABLES` declares."""

from __future__ import annotations

import re

import pytest

from audius_challenges.catalog import CATALOG
from audius_challenges.challenges import CHALLENGES
from audius_challenges.sources import HELPFUL_INDEXES, PRINTED_TYPES, TABLES, Index
from devtools import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "discovery-tables.md").read_text()
CHALLENGES_PAGE = (REPOSITORY / "docs" / "reference" / "challenges.md").read_text()
SECTION = re.compile(r"^### (\w+)\n\n\| column \| type \| needed by \|\n[-| ]+\n((?:\|.*\|\n)+)", re.MULTILINE)
NAME = re.compile(r"`(\w+)`")

# The page's short names of types; others are called there as PostgreSQL calls them.
TYPES = {
    "varchar": "character varying",
    "float8": "double precision",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}


def described() -> dict[str, dict[str, tuple[str, str]]]:
    """Table -> column -> its type, and the cell that says who needs it, as the page has them."""
    tables: dict[str, dict[str, tuple[str, str]]] = {}
    for table, lines in SECTION.findall(PAGE):
        assert table not in tables, f"{table} is described twice"
        columns = tables[table] = {}
        for line in lines.splitlines():
            names, kind, needed_by = (cell.strip() for cell in line.strip("|").split("|"))
            for name in NAME.findall(names):
                assert name not in columns, f"{table}.{name} is described twice"
                columns[name] = (TYPES.get(kind, kind), needed_by)
    return tables


def test_the_page_has_each_declared_table_and_no_other() -> None:
    assert sorted(described()) == sorted(table.name for table in TABLES.values() if table.columns)


def test_the_page_mentions_the_tables_that_are_not_ours_to_read() -> None:
    assert [table.name for table in TABLES.values() if not table.columns and f"`{table.name}`" not in PAGE] == []


@pytest.mark.parametrize("table", [table.name for table in TABLES.values() if table.columns])
def test_the_page_has_each_declared_column_with_a_type_that_it_may_have(table: str) -> None:
    columns = described()[table]
    assert sorted(columns) == sorted(TABLES[table].columns)
    declared = {name: {PRINTED_TYPES[kind] for kind in kinds} for name, kinds in TABLES[table].columns.items()}
    assert [name for name, (kind, _) in columns.items() if kind not in declared[name]] == []


@pytest.mark.parametrize("table", [table.name for table in TABLES.values() if table.columns])
def test_whoever_the_page_says_needs_a_column_reads_it(table: str) -> None:
    """A new challenge may be missing there, but nobody is named who no longer needs it."""
    readers: dict[str, set[str]] = {name: set() for name in TABLES[table].columns}
    for challenge in CHALLENGES:
        for name in challenge.reads.get(table, frozenset()) | CATALOG.get(table, frozenset()):
            readers[name].add(challenge.id)
    everybody = {challenge.id for challenge in CHALLENGES}
    for name, (_, cell) in described()[table].items():
        needed_by = everybody if cell == "all" else set(NAME.findall(cell))
        assert needed_by or cell == "-", f"{name}: {cell}"
        assert needed_by - readers[name] == set(), name


@pytest.mark.parametrize("index", HELPFUL_INDEXES)
def test_the_reference_says_how_to_make_each_helpful_index_and_what_it_does(index: Index) -> None:
    columns = index.statement().removeprefix("CREATE INDEX CONCURRENTLY ON ").removesuffix(";")
    assert f"| `{columns}` |" in PAGE
    assert f"\n{index.statement()}\n" in CHALLENGES_PAGE
