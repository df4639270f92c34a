"""The doorway to PostgreSQL: the part of plpy that is used here, and SQL with named parameters.

SQL in this package says `discovery.users` for a table of the discovery schema, whatever that schema is called here, and
`:users::bigint[]` for a parameter, with its type where it is used. Statements are composed of constants by f-strings;
values are always parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from audius_challenges.errors import READ_ONLY_SQL_TRANSACTION, ChallengeError
from audius_challenges.sources import Index

# Literals, quoted names and comments stand first, so that nothing is looked for inside them.
_TOKEN = re.compile(
    r"""
    '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]*
    | (?<![:\w]):(?P<name>[a-z_]+)(?:::(?P<type>[a-z_0-9]+(?:\[\])?))?
    | \bdiscovery\.(?P<table>\w+)
    """,
    re.VERBOSE,
)

# PostgreSQL plans a prepared statement for its parameters so many times, then perhaps for any. Ours are to be planned
# for theirs, an array of one user or of 50,000, always. (The setting plan_cache_mode would also hit the statements of
# the application's triggers and of foreign keys, which would be planned anew for every row that we write.)
CUSTOM_PLANS = 5

Row = dict[str, Any]

NONE_ABSENT: Mapping[str, str] = MappingProxyType({})


class Result(Protocol):
    """What plpy.execute returns."""

    def __iter__(self) -> Iterator[Row]: ...


class Plpy(Protocol):
    """The part of PL/Python's `plpy` module that this package uses."""

    Error: type[Exception]
    SPIError: type[Exception]

    def prepare(self, query: str, argtypes: Sequence[str], /) -> Any: ...
    def execute(self, query: Any, arguments: Sequence[Any] = ..., /) -> Result: ...
    def subtransaction(self) -> AbstractContextManager[Any]: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def notice(self, message: str, /, *, detail: str = ..., hint: str = ...) -> None: ...
    def warning(self, message: str, /, *, detail: str = ..., hint: str = ...) -> None: ...
    def quote_ident(self, name: str, /) -> str: ...
    def quote_literal(self, text: str, /) -> str: ...


@dataclass(frozen=True)
class Statement:
    """SQL as PostgreSQL takes it.

    :ivar parameters: name -> type, in the order of their numbers in the text
    """

    text: str
    parameters: dict[str, str]


def translated(sql: str, schema: str, absent: Mapping[str, str] = NONE_ABSENT) -> Statement:
    """A statement of this package, with the schema's name in it and numbers for parameters.

    :param schema: the name of the discovery schema, quoted if it needs quotes
    :param absent: names of tables that are not there -> what stands for them
    :raises ValueError: naming a parameter that has no type, or two
    """
    parameters: dict[str, str] = {}

    def replaced(token: re.Match[str]) -> str:
        if table := token["table"]:
            return f"{absent[table]} AS {table}" if table in absent else f"{schema}.{table}"
        if not (name := token["name"]):
            return token[0]
        if parameters.setdefault(name, token["type"]) != token["type"] or not token["type"]:
            raise ValueError(f"parameter :{name} has to have one type wherever it is used, not {token[0]}")
        return f"${list(parameters).index(name) + 1}::{token['type']}"

    return Statement(_TOKEN.sub(replaced, sql), parameters)


@dataclass
class Plan:
    """A prepared statement: its parameters' names in their order, and how often it was executed."""

    prepared: Any
    parameters: list[str]
    uses: int = 0


# In a tick the caller's search_path is still in force: no operator of his is called.
_HOME = """
    SELECT pg_namespace.nspname AS name
    FROM pg_catalog.pg_extension
    INNER JOIN pg_catalog.pg_namespace
        ON pg_extension.extnamespace OPERATOR(pg_catalog.=) pg_namespace.oid
    WHERE pg_extension.extname OPERATOR(pg_catalog.=) 'audius_challenges'
"""


def home_schema(plpy: Plpy) -> str:
    """The schema of the discovery tables: the one that the extension was created in, by the name that it has now."""
    ((name,),) = (row.values() for row in plpy.execute(_HOME))
    return str(name)


class Database:
    """One session's database: runs SQL over plans that are prepared once a session.

    :param plpy: PL/Python's module
    :param schema: the schema of the discovery tables, unquoted (see `home_schema`)
    :ivar indexes: those of `HELPFUL_INDEXES` that there are
    """

    _plans: ClassVar[dict[tuple[str, frozenset[str], str], Plan]] = {}

    def __init__(self, plpy: Plpy, schema: str) -> None:
        self.plpy = plpy
        self.schema = schema
        self.absent = NONE_ABSENT
        self.indexes: frozenset[Index] = frozenset()

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        """Run one statement and return its rows (none if it returns none).

        :param parameters: what the statement needs; others are ignored
        :raises plpy.SPIError: whatever PostgreSQL says against it
        """
        key = (self.schema, frozenset(self.absent), sql)
        plan = self._plans.get(key)
        if plan is None or plan.uses == CUSTOM_PLANS:
            plan = self._plans[key] = self._prepare(sql)
        plan.uses += 1
        return list(self.plpy.execute(plan.prepared, [parameters[name] for name in plan.parameters]))

    def row(self, sql: str, **parameters: Any) -> Row:
        """Run a statement that returns exactly one row."""
        (row,) = self.rows(sql, **parameters)
        return row

    def value(self, sql: str, **parameters: Any) -> Any:
        """Run a statement that returns exactly one row of one column."""
        (value,) = self.row(sql, **parameters).values()
        return value

    def _prepare(self, sql: str) -> Plan:
        statement = translated(sql, self.plpy.quote_ident(self.schema), self.absent)
        prepared = self.plpy.prepare(statement.text, list(statement.parameters.values()))
        return Plan(prepared, list(statement.parameters))


def require_writable(db: Database) -> None:
    """Demand a transaction that can write.

    :raises ChallengeError: on a standby, and in a read-only transaction
    """
    transaction = db.row(
        """
        SELECT
            pg_is_in_recovery() AS is_standby,
            current_setting('transaction_read_only')::boolean AS is_read_only
        """
    )
    if transaction["is_standby"]:
        raise ChallengeError(
            "this server is a standby: challenges are reconciled on the primary",
            sqlstate=READ_ONLY_SQL_TRANSACTION,
            hint="Call it on the primary; what it writes is replicated.",
        )
    if transaction["is_read_only"]:
        raise ChallengeError(
            "the transaction is read-only",
            sqlstate=READ_ONLY_SQL_TRANSACTION,
            hint="Use a read-write transaction; a dry run writes, too, and rolls back.",
        )
