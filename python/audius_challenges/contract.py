"""The contract with the discovery schema: which of the declared tables and columns there are, of which types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from audius_challenges.database import AnyPlan, Database
from audius_challenges.errors import (
    DATATYPE_MISMATCH,
    OBJECT_NOT_IN_PREREQUISITE_STATE,
    UNDEFINED_COLUMN,
    UNDEFINED_TABLE,
    WRONG_OBJECT_TYPE,
    ChallengeError,
)
from audius_challenges.sources import HELPFUL_INDEXES, PRINTED_TYPES, TABLES, WRITTEN, Index, Reads

_COLUMNS = AnyPlan("""
    SELECT
        relation.relname::text AS table_name,
        CASE
            WHEN relation.relkind IN ('r', 'p')
                AND relation.relhassubclass
                AND EXISTS (
                    WITH RECURSIVE part (oid) AS (
                        SELECT relation.oid
                        UNION ALL
                        SELECT pg_inherits.inhrelid
                        FROM part
                        INNER JOIN pg_inherits
                            ON part.oid = pg_inherits.inhparent
                    )
                    SELECT FROM part
                    INNER JOIN pg_class AS leaf
                        ON part.oid = leaf.oid
                    WHERE leaf.relkind = 'f'
                )
                THEN 'partly foreign'
            ELSE relation.relkind::text
        END AS kind,
        attribute.attname::text AS column_name,
        kind.typname::text AS type_name
    FROM pg_class AS relation
    INNER JOIN pg_attribute AS attribute
        ON attribute.attrelid = relation.oid
        AND attribute.attnum > 0
        AND NOT attribute.attisdropped
    INNER JOIN pg_type AS declared
        ON declared.oid = attribute.atttypid
    INNER JOIN pg_type AS kind
        ON kind.oid = coalesce(nullif(declared.typbasetype, 0), declared.oid)
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    WHERE namespace.nspname = :schema::text
        AND relation.relname = ANY(:tables::text[])
        AND relation.relkind IN ('r', 'p', 'f', 'v', 'm')
""")

# What pg_class.relkind calls v, m, f; and a table of which a part is one.
_VIEWS = {
    "v": "a view, not a table",
    "m": "a materialized view, not a table",
    "f": "a foreign table, not a table",
    "partly foreign": "a table with a foreign partition",
}

_ELSEWHERE = AnyPlan("""
    SELECT
        relation.relname::text AS table_name,
        array_agg(quote_ident(namespace.nspname) ORDER BY namespace.nspname) AS schemas
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON relation.relnamespace = namespace.oid
    WHERE relation.relname = ANY(:missing::text[])
        AND relation.relkind IN ('r', 'p')
        AND namespace.nspname !~ '^(pg_|information_schema$)'
    GROUP BY relation.relname
""")

_KEYLESS = AnyPlan("""
    SELECT relation.relname::text AS table_name
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    WHERE namespace.nspname = :schema::text
        AND relation.relname = ANY(:tables::text[])
        AND relation.relkind IN ('r', 'p')
        AND NOT EXISTS (
            SELECT FROM pg_index AS key
            WHERE key.indrelid = relation.oid
                AND key.indisunique
                AND key.indisvalid
        )
    ORDER BY relation.relname
""")

_INDEXES = AnyPlan("""
    SELECT
        relation.relname::text AS table_name,
        attribute.attname::text AS column_name,
        pg_get_expr(built.indpred, built.indrelid) AS predicate
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    INNER JOIN pg_index AS built
        ON built.indrelid = relation.oid
        AND built.indisvalid
    INNER JOIN pg_attribute AS attribute
        ON attribute.attrelid = relation.oid
        AND attribute.attnum = built.indkey[0]
    WHERE namespace.nspname = :schema::text
        AND relation.relname = ANY(:tables::text[])
""")


@dataclass(frozen=True)
class Contract:
    """The discovery tables as they are.

    :ivar columns: table name -> column name -> type
    :ivar views: names of relations that are no tables, or not wholly -> what they are
    :ivar keyless: tables that we write and that have no unique index, as in mid-restore
    :ivar elsewhere: names of tables that are missing -> other schemas that have one of that name
    """

    schema: str
    columns: Mapping[str, Mapping[str, str]]
    views: Mapping[str, str]
    keyless: Sequence[str]
    elsewhere: Mapping[str, Sequence[str]]

    def has(self, reads: Reads) -> bool:
        """Whether there are such tables with such columns, and keys."""
        try:
            self.require(reads)
        except ChallengeError:
            return False
        return True

    def require(self, reads: Reads) -> None:
        """Demand tables with columns, and keys without which nothing can be written once and only once.

        :raises ChallengeError: naming the first table or column that is missing or of another type, or without a key
        """
        for table, names in reads.items():
            self._require_table(table, names)
        if keyless := [table for table in self.keyless if table in reads]:
            raise ChallengeError(
                f"no primary key on {', '.join(f'{self.schema}.{table}' for table in keyless)}",
                sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
                hint="If a restore is under way, wait until it has finished. If not, create the primary key;"
                " nothing runs without it.",
            )

    @cached_property
    def is_whole(self) -> bool:
        """Whether everything is there that is declared, so that nobody has to be asked what he demands of it."""
        return not self.keyless and all(
            table.name in self.absent
            or (
                table.name not in self.views
                and all(self.columns.get(table.name, {}).get(name) in types for name, types in table.columns.items())
            )
            for table in TABLES.values()
        )

    @cached_property
    def absent(self) -> frozenset[str]:
        """The optional tables that are nowhere. One that is in another schema was moved: what it says is not gone."""
        return frozenset(
            table.name
            for table in TABLES.values()
            if table.is_optional and table.name not in self.columns and table.name not in self.elsewhere
        )

    def _require_table(self, table: str, names: frozenset[str]) -> None:
        if table in self.absent:
            return
        if table not in self.columns:
            raise ChallengeError(
                f'table "{self.schema}.{table}" does not exist',
                sqlstate=UNDEFINED_TABLE,
                hint=self.where_it_is(table),
            )
        if table in self.views:
            raise ChallengeError(
                f'"{self.schema}.{table}" is {self.views[table]}',
                sqlstate=WRONG_OBJECT_TYPE,
                detail="Changes are found by xmin, the transaction that wrote a row, which only tables have.",
                hint=f"Move the rows into a table named {table}.",
            )
        for name, expected in TABLES[table].columns.items():
            if name not in names:
                continue
            if name not in self.columns[table]:
                raise ChallengeError(
                    f'column "{name}" of table "{self.schema}.{table}" does not exist',
                    sqlstate=UNDEFINED_COLUMN,
                    hint=f"It should be of type {PRINTED_TYPES[expected[0]]}.",
                )
            if self.columns[table][name] not in expected:
                raise ChallengeError(
                    f'column "{name}" of table "{self.schema}.{table}" is of type'
                    f" {PRINTED_TYPES.get(self.columns[table][name], self.columns[table][name])}",
                    sqlstate=DATATYPE_MISMATCH,
                    hint=f"It should be of type {PRINTED_TYPES[expected[0]]}.",
                )

    def where_it_is(self, table: str) -> str:
        """A hint for a table that is missing."""
        if schemas := self.elsewhere.get(table):
            return (
                f"The extension is in schema {self.schema}, and there is a table {table} in schema"
                f" {', '.join(schemas)}. If it was moved, move it back, or move the extension after it without losing"
                " its state: docs/how-to/move-to-another-schema.md."
            )
        return (
            f"The extension looks for the discovery tables in schema {self.schema};"
            " CREATE EXTENSION ... SCHEMA sets another."
        )

    def is_bigint(self, table: str, column: str) -> bool:
        """Whether there is such a column, and it is a bigint."""
        return self.columns.get(table, {}).get(column) == "int8"

    @property
    def has_discovery_tables(self) -> bool:
        """Whether this is a discovery database at all, whole or with some table missing."""
        return {"users", "challenges", "user_challenges"} <= self.columns.keys()


def read_contract(db: Database) -> Contract:
    """Look up what the discovery schema has. From then on, statements find optional tables that it lacks empty.

    And which of the helpful indexes there are.
    """
    columns: dict[str, dict[str, str]] = {}
    views: dict[str, str] = {}
    for row in db.rows(_COLUMNS, schema=db.schema, tables=list(TABLES)):
        columns.setdefault(row["table_name"], {})[row["column_name"]] = row["type_name"]
        if row["kind"] in _VIEWS:
            views[row["table_name"]] = _VIEWS[row["kind"]]
    keyless = [row["table_name"] for row in db.rows(_KEYLESS, schema=db.schema, tables=list(WRITTEN))]
    missing = list(TABLES.keys() - columns)
    found = db.rows(_ELSEWHERE, missing=missing) if missing else []
    elsewhere = {row["table_name"]: row["schemas"] for row in found}
    contract = Contract(db.schema, columns, views, keyless, elsewhere)
    db.indexes = existing_indexes(db, HELPFUL_INDEXES)
    db.absent = {table: TABLES[table].empty for table in contract.absent}
    return contract


def existing_indexes(db: Database, indexes: Sequence[Index]) -> frozenset[Index]:
    """Which of these indexes there are."""
    found = db.rows(_INDEXES, schema=db.schema, tables=sorted({index.table for index in indexes}))
    return frozenset(
        index
        for index in indexes
        for row in found
        if (row["table_name"], row["column_name"]) == (index.table, index.column) and index.is_one(row["predicate"])
    )
