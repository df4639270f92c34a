"""How SQL of the package is read, without a server: its parameters, and the columns that it names."""

from __future__ import annotations

import re

import pytest

from audius_challenges.database import Statement, translated
from audius_challenges.sources import Reads, columns_read
from devtools import REPOSITORY

TRANSLATED = {
    "a parameter has a number and its type": (
        "SELECT :user::integer",
        "SELECT $1::integer",
        {"user": "integer"},
    ),
    "an array": (
        "WHERE owner_id = ANY(:users::integer[])",
        "WHERE owner_id = ANY($1::integer[])",
        {"users": "integer[]"},
    ),
    "a repeated parameter has one number": (
        "SELECT :a::text, :b::text, :a::text",
        "SELECT $1::text, $2::text, $1::text",
        {"a": "text", "b": "text"},
    ),
    "a parameter may be cast further": (
        "SELECT :phase::text::phase, (:ids::text)::integer[]",
        "SELECT $1::text::phase, ($2::text)::integer[]",
        {"phase": "text", "ids": "text"},
    ),
    "casts of others stay": (
        "SELECT now()::text, amount::text, '1'::integer, ARRAY[id]::bigint[]",
        "SELECT now()::text, amount::text, '1'::integer, ARRAY[id]::bigint[]",
        {},
    ),
    "slices of arrays stay": (
        "SELECT ids[1:2], ids[first:last]",
        "SELECT ids[1:2], ids[first:last]",
        {},
    ),
    "a name may contain another": (
        "SELECT :user::integer, :users::integer[], :user_id::bigint",
        "SELECT $1::integer, $2::integer[], $3::bigint",
        {"user": "integer", "users": "integer[]", "user_id": "bigint"},
    ),
    "literals stay": (
        "SELECT ':t:', ':amount::integer', 'it''s :a::text', '', :a::text",
        "SELECT ':t:', ':amount::integer', 'it''s :a::text', '', $1::text",
        {"a": "text"},
    ),
    "a literal of several lines stays": (
        "SELECT 'one\n:two::text\n', :a::text",
        "SELECT 'one\n:two::text\n', $1::text",
        {"a": "text"},
    ),
    "quoted identifiers stay": (
        'SELECT ":a::text", "say "":b::text""", :c::text',
        'SELECT ":a::text", "say "":b::text""", $1::text',
        {"c": "text"},
    ),
    "comments stay": (
        "SELECT 1 -- it's :a::text of discovery.users\nFROM discovery.users WHERE id = :b::bigint",
        "SELECT 1 -- it's :a::text of discovery.users\nFROM audius.users WHERE id = $1::bigint",
        {"b": "bigint"},
    ),
    "a literal does not begin a comment": (
        "SELECT '--', :a::text",
        "SELECT '--', $1::text",
        {"a": "text"},
    ),
    "the schema's name stands for discovery": (
        "FROM discovery.users JOIN discovery.tracks AS t",
        "FROM audius.users JOIN audius.tracks AS t",
        {},
    ),
    "discovery in a literal, in quotes or as a part of a name stays": (
        "SELECT 'discovery.users', \"discovery.users\", rediscovery.id, discovery AS d",
        "SELECT 'discovery.users', \"discovery.users\", rediscovery.id, discovery AS d",
        {},
    ),
}


@pytest.mark.parametrize(("sql", "text", "parameters"), TRANSLATED.values(), ids=TRANSLATED)
def test_sql_is_translated(sql: str, text: str, parameters: dict[str, str]) -> None:
    assert translated(sql, "audius") == Statement(text, parameters)
    assert list(translated(sql, "audius").parameters) == list(parameters)


def test_a_schema_is_put_as_it_is_quoted() -> None:
    assert translated("FROM discovery.users", '"The Network"').text == 'FROM "The Network".users'


@pytest.mark.parametrize(
    ("sql", "name", "given"),
    [
        ("SELECT :amount", "amount", ":amount"),
        ("SELECT :amount::integer, :amount", "amount", ":amount"),
        ("SELECT :user::integer, :amount::integer, :amount::bigint", "amount", ":amount::bigint"),
        ("SELECT :amount::integer, :amount::integer[]", "amount", ":amount::integer[]"),
    ],
)
def test_a_parameter_without_a_type_or_with_two_is_named(sql: str, name: str, given: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^parameter :{name} has to have one type .*, not {given}$".replace("[]", r"\[\]")
    ):
        translated(sql, "audius")


def reads(**columns: str) -> Reads:
    """Table → columns, given as words."""
    return {table: frozenset(names.split()) for table, names in columns.items()}


COLUMNS = {
    "a table's own name": (
        "SELECT tracks.owner_id FROM discovery.tracks WHERE NOT tracks.is_delete",
        reads(tracks="owner_id is_delete"),
    ),
    "an alias": (
        "SELECT t.track_id FROM discovery.tracks AS t JOIN discovery.users AS owner ON owner.user_id = t.owner_id",
        reads(tracks="track_id owner_id", users="user_id"),
    ),
    "two aliases of one table": (
        "SELECT a.owner_id, b.track_id FROM discovery.tracks AS a, discovery.tracks AS b",
        reads(tracks="owner_id track_id"),
    ),
    "a table of which no column is named": (
        "SELECT count(*) FROM discovery.blocks",
        reads(blocks=""),
    ),
    "other qualified names are none of ours": (
        "WITH owned AS (SELECT tracks.owner_id FROM discovery.tracks) SELECT owned.any, excluded.amount FROM owned",
        reads(tracks="owner_id"),
    ),
    "the target of an INSERT": (
        "INSERT INTO discovery.trending_results (user_id, id,\n rank) SELECT found.user_id, found.id, 1 FROM found",
        reads(trending_results="user_id id rank"),
    ),
    "the target of an INSERT with an alias": (
        "INSERT INTO discovery.challenges AS c (id, amount) SELECT 'a', 1 ON CONFLICT (id) DO UPDATE SET id = c.active",
        reads(challenges="id amount active"),
    ),
    "what a literal says is not read": (
        "SELECT 'discovery.plays', 'it''s tracks.stem_of', tracks.owner_id FROM discovery.tracks",
        reads(tracks="owner_id"),
    ),
}


@pytest.mark.parametrize(("sql", "expected"), COLUMNS.values(), ids=COLUMNS)
def test_the_columns_that_sql_names(sql: str, expected: Reads) -> None:
    assert columns_read(sql) == expected


def test_an_alias_may_be_taken_for_granted() -> None:
    found = columns_read("eligible.bio", "changed.owner_id", eligible="users", changed="tracks")
    assert found == reads(users="bio", tracks="owner_id")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT tracks.genre FROM discovery.tracks",
        "SELECT t.owner_id, t.genre FROM discovery.tracks AS t",
        "INSERT INTO discovery.tracks (track_id, genre) SELECT 1, 'jazz'",
    ],
)
def test_a_column_without_a_declaration_is_named(sql: str) -> None:
    with pytest.raises(KeyError, match=r"tracks is declared without genre in sources\.py"):
        columns_read(sql)


ROUTINE = re.compile(r"^CREATE (?:FUNCTION|PROCEDURE) (\S+?)\((.*?)^\$\w+\$;$", re.MULTILINE | re.DOTALL)


def test_no_routine_goes_by_the_schema_that_it_was_created_in() -> None:
    """The schema may be renamed: what is inside a routine, and its SET clauses, would go on saying the old name.

    Those that return sets must not change from release to release; they hand the name over, and nobody takes it.
    """
    found = [routine for path in (REPOSITORY / "sql").glob("*.sql") for routine in ROUTINE.findall(path.read_text())]
    released = ROUTINE.findall((REPOSITORY / "extension" / "releases" / "audius_challenges--1.1.0.sql").read_text())
    saying = [(name, rest) for name, rest in found if "extschema" in rest]
    assert [name for name, rest in saying if (name, rest) not in released] == []
    assert {name.split(".")[1] for name, _ in saying} == {
        "reconcile_challenges",
        "schedule_challenges",
        "unschedule_challenges",
        "status",
    }
    assert len(found) > 10
