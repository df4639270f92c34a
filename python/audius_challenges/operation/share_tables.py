"""The tables that shares are made of, as the primary has them: columns, what replication finds their rows by, indexes.

A node has of each table the columns that its challenges read, and those by which replication finds a row. Columns of
types that the application has made are text there: replication sends texts, and a value that is added to a type on the
primary stops nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from audius_challenges.catalog import CATALOG
from audius_challenges.challenges import CHALLENGES
from audius_challenges.contract import read_contract
from audius_challenges.database import Database, Row
from audius_challenges.engine.shares import COMPLETIONS, SHARED, STREAKS, USER_CHALLENGES
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError
from audius_challenges.sources import NEEDED_INDEXES, TABLES, Index, Reads, merged

FILTERS = {
    "users": "user_id",
    "follows": "follower_user_id",
    "saves": "user_id",
    "reposts": "user_id",
    "plays": "user_id",
    USER_CHALLENGES: "user_id",
    COMPLETIONS: "user_id",
    STREAKS: "user_id",
}
"""The tables of which a node gets the rows of its users, and the column that says whose a row is."""

DERIVED = (USER_CHALLENGES, COMPLETIONS, STREAKS)
"""The tables that nodes write: copied once, when a node begins."""

STATE = ("share_plan", "share_beat", "pause")
"""The tables of the extension that nodes follow."""

_PARTS = """
    SELECT
        root.relname::text AS table_name,
        part.relname::text AS part_name,
        part.relreplident::text AS kind,
        part.oid = root.oid AS is_root,
        part.relkind = 'p' AS is_partitioned,
        part.relhassubclass AND part.relkind = 'r' AS has_children,
        coalesce((
            SELECT array_agg(attribute.attname::text ORDER BY place.number)
            FROM pg_index AS key
            CROSS JOIN LATERAL unnest(key.indkey[0:key.indnkeyatts - 1])
                WITH ORDINALITY AS place (attnum, number)
            INNER JOIN pg_attribute AS attribute
                ON attribute.attrelid = part.oid
                AND attribute.attnum = place.attnum
            WHERE key.indrelid = part.oid
                AND CASE WHEN part.relreplident = 'i' THEN key.indisreplident ELSE key.indisprimary END
        ), '{}') AS key
    FROM pg_class AS root
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = root.relnamespace
        AND namespace.nspname = :schema::text
    CROSS JOIN LATERAL (
        SELECT root.oid AS relid
        UNION
        SELECT tree.relid
        FROM pg_partition_tree(root.oid) AS tree
    ) AS member
    INNER JOIN pg_class AS part
        ON part.oid = member.relid
    WHERE root.relname = ANY(:tables::text[])
    ORDER BY
        root.relname,
        part.oid <> root.oid,
        part.relname
"""

_COLUMNS = """
    SELECT
        relation.relname::text AS table_name,
        attribute.attname::text AS column_name,
        CASE
            WHEN base.typnamespace = 'pg_catalog'::regnamespace
                THEN format_type(
                    base.oid, CASE WHEN declared.typbasetype = 0 THEN attribute.atttypmod ELSE declared.typtypmod END
                )
            ELSE 'text'
        END AS type_name
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
    INNER JOIN pg_attribute AS attribute
        ON attribute.attrelid = relation.oid
        AND attribute.attnum > 0
        AND NOT attribute.attisdropped
        AND attribute.attgenerated = ''
    INNER JOIN pg_type AS declared
        ON declared.oid = attribute.atttypid
    INNER JOIN pg_type AS base
        ON base.oid = coalesce(nullif(declared.typbasetype, 0), declared.oid)
    WHERE relation.relname = ANY(:tables::text[])
    ORDER BY
        relation.relname,
        attribute.attnum
"""

# Of plain columns alone, and of rows that PostgreSQL's own operators tell. A unique one is no more than an index on a
# node: what it holds is held on the primary.
_INDEXES = """
    SELECT
        relation.relname::text AS table_name,
        (
            SELECT array_agg(attribute.attname::text ORDER BY place.number)
            FROM unnest(built.indkey::smallint[]) WITH ORDINALITY AS place (attnum, number)
            INNER JOIN pg_attribute AS attribute
                ON attribute.attrelid = relation.oid
                AND attribute.attnum = place.attnum
        ) AS columns,
        (
            SELECT string_agg(
                pg_get_indexdef(built.indexrelid, place.number::integer, FALSE)
                || CASE built.indoption[place.number - 1] & 3
                    WHEN 0 THEN ''
                    WHEN 1 THEN ' DESC NULLS LAST'
                    WHEN 2 THEN ' NULLS FIRST'
                    ELSE ' DESC'
                END,
                ', ' ORDER BY place.number
            )
            FROM generate_series(1, built.indnkeyatts) AS place (number)
        ) AS keys,
        coalesce((
            SELECT array_agg(DISTINCT attribute.attname::text)
            FROM pg_depend AS dependency
            INNER JOIN pg_attribute AS attribute
                ON attribute.attrelid = relation.oid
                AND attribute.attnum = dependency.refobjsubid
            WHERE dependency.classid = 'pg_class'::regclass
                AND dependency.objid = built.indexrelid
                AND dependency.refclassid = 'pg_class'::regclass
                AND dependency.refobjid = relation.oid
        ), '{}') AS further,
        pg_get_expr(built.indpred, built.indrelid) AS predicate
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
    INNER JOIN pg_index AS built
        ON built.indrelid = relation.oid
        AND built.indisvalid
        AND NOT built.indisprimary
        AND built.indexprs IS NULL
    INNER JOIN pg_class AS index
        ON index.oid = built.indexrelid
    INNER JOIN pg_am AS method
        ON method.oid = index.relam
        AND method.amname = 'btree'
    WHERE relation.relname = ANY(:tables::text[])
        AND NOT EXISTS (
            SELECT FROM pg_depend AS other
            WHERE other.classid = 'pg_class'::regclass
                AND other.objid = built.indexrelid
                AND other.refclassid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass)
        )
    ORDER BY
        relation.relname,
        index.relname
"""


@dataclass
class Shared:
    """A table of the primary, as nodes are to have it.

    :ivar columns: the columns that are sent -> their types on a node
    :ivar is_listed: whether a publication names the columns: where replication finds rows by all of them, it may not
    :ivar key: the columns of the primary key on a node; empty: it has none
    """

    name: str
    columns: dict[str, str]
    is_listed: bool
    key: tuple[str, ...]


def read_tables(db: Database) -> list[Shared]:
    """The tables that shares take.

    :raises ChallengeError: naming what the challenges of shares miss, or a table that cannot be published
    """
    reads = reads_of_shares()
    read_contract(db).require(reads)
    names = list(reads)
    parts: dict[str, list[Row]] = {}
    for row in db.rows(_PARTS, schema=db.schema, tables=names):
        parts.setdefault(row["table_name"], []).append(row)
    columns: dict[str, dict[str, str]] = {}
    for row in db.rows(_COLUMNS, schema=db.schema, tables=names):
        columns.setdefault(row["table_name"], {})[row["column_name"]] = row["type_name"]
    return [_shared(db, name, reads[name], columns[name], parts[name]) for name in names]


def reads_of_shares() -> Reads:
    """What the challenges of shares read and write, and the catalog; tables in the order of their declarations."""
    reads = merged([CATALOG, *(processor.reads for processor in CHALLENGES if processor.id in SHARED)])
    return {name: reads[name] for name in TABLES if name in reads}


def is_followed(table: str) -> bool:
    """Whether nodes follow what becomes of its rows: of plays they get the new ones, of derived tables a copy."""
    return table != "plays" and table not in DERIVED


def indexes_of(db: Database, tables: list[Shared]) -> list[str]:
    """What creates the indexes of nodes: the primary's, where all columns are there, and those that challenges need."""
    found = db.rows(_INDEXES, schema=db.schema, tables=[table.name for table in tables])
    schema = db.plpy.quote_ident(db.schema)
    statements = []
    for table in tables:
        has: list[tuple[str, str | None]] = [(table.key[0], None)] if table.key else []
        for row in found:
            if tuple(row["columns"]) == table.key:
                continue
            if row["table_name"] == table.name and {*row["columns"], *row["further"]} <= table.columns.keys():
                where = f" WHERE {row['predicate']}" if row["predicate"] else ""
                statements.append(f"CREATE INDEX ON {schema}.{db.plpy.quote_ident(table.name)} ({row['keys']}){where}")
                has.append((row["columns"][0], row["predicate"]))
        for needed in NEEDED_INDEXES:
            if (
                needed.table == table.name
                and needed.column in table.columns
                and not any(column == needed.column and needed.is_one(predicate) for column, predicate in has)
            ):
                further = [name for name in needed.further.split(", ") if name in table.columns]
                cut = Index(table.name, needed.column, needed.where, ", ".join(further))
                statements.append(cut.statement(schema, at_once=True).removesuffix(";"))
                has.append((needed.column, None))
    return statements


def _shared(db: Database, name: str, reads: frozenset[str], columns: dict[str, str], parts: list[Row]) -> Shared:
    needed = {*reads, *([FILTERS[name]] if name in FILTERS else [])}
    table = f"{db.plpy.quote_ident(db.schema)}.{db.plpy.quote_ident(name)}"
    if parts[0]["has_children"]:
        raise ChallengeError(
            f"table {table} has children that are no partitions: their rows would arrive under names of their own",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="Make it one table, or a partitioned one.",
        )
    key_of_node = TABLES[name].key if name in DERIVED else tuple(parts[0]["key"])
    is_whole = False
    if is_followed(name):
        for part in parts:
            if part["is_partitioned"] and not part["is_root"]:
                continue
            key = set(part["key"])
            _require_identity(db, name, part, key)
            is_whole |= part["kind"] == "f"
            needed |= key
    if unsent := sorted(needed - columns.keys()):
        raise ChallengeError(
            f'column "{unsent[0]}" of {table} is generated: replication does not send it',
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"ALTER TABLE {table} ALTER COLUMN {db.plpy.quote_ident(unsent[0])} DROP EXPRESSION; and have a"
            " trigger write it.",
        )
    sent = {column: kind for column, kind in columns.items() if is_whole or column in needed}
    # Plays are cleared and indexed again with the same ids: a key would stop the share then.
    return Shared(name, sent, not is_whole, () if name == "plays" else key_of_node)


def _require_identity(db: Database, name: str, part: Row, key: set[str]) -> None:
    """Demand that a row's updates and deletes can be published, by this filter.

    Otherwise PostgreSQL creates the publication, and from then on refuses the application's statements.

    :raises ChallengeError: naming the table or partition
    """
    if part["kind"] == "f":
        return
    quoted = f"{db.plpy.quote_ident(db.schema)}.{db.plpy.quote_ident(name)}"
    whose = quoted if part["is_root"] else f"partition {db.plpy.quote_ident(part['part_name'])} of {quoted}"
    if part["kind"] == "n" or not key:
        raise ChallengeError(
            f"{whose} has no replica identity: once it is published, the application could update and delete nothing",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="Give it a primary key and ALTER TABLE ... REPLICA IDENTITY DEFAULT;"
            " or ALTER TABLE ... REPLICA IDENTITY FULL; which has all columns written to the log.",
        )
    column = FILTERS.get(name)
    if column and column not in key:
        raise ChallengeError(
            f'column "{column}" of {whose} is not in its replica identity: once shares are published by it, the'
            " application could update and delete nothing",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            detail=f"The replica identity is ({', '.join(sorted(key))}).",
            hint="Have a unique index with the column serve: ALTER TABLE ... REPLICA IDENTITY USING INDEX ...;"
            " or ALTER TABLE ... REPLICA IDENTITY FULL; which has all columns written to the log.",
        )
