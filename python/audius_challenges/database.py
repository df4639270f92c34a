"""The doorway to PostgreSQL: the part of plpy that is used here, and SQL with named parameters.

SQL in this package says `discovery.users` for a table of the discovery schema, whatever that schema is called
here, and `:users` for a parameter. Every parameter has one type throughout, given in `PARAMETER_TYPES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from audius_challenges.errors import READ_ONLY_SQL_TRANSACTION, ChallengeError

PARAMETER_TYPES = {
    "amount": "int4",
    "amounts": "int4[]",
    "as_of": "timestamptz",
    "catalog_seen": "text",
    "challenge_id": "text",
    "challenge_ids": "text[]",
    "command": "text",
    "completed_at": "int8[]",
    "completes": "bool[]",
    "created_at": "int8[]",
    "error": "text",
    "greatest_user": "int4",
    "horizon": "int8",
    "interval": "interval",
    "job_id": "int8",
    "least_id": "int8",
    "least_user": "int4",
    "limit": "int8",
    "name": "text",
    "names": "text[]",
    "opened": "int8",
    "payload": "jsonb",
    "phase": "text",
    "position": "int8",
    "ranked_type": "text",
    "ran": "bool",
    "reach": "int8",
    "rounds": "int8",
    "schedule": "text",
    "seconds": "float8",
    "skipped": "int8[]",
    "specifiers": "text[]",
    "starting_block": "int4",
    "steps": "int4[]",
    "streaks": "int4[]",
    "suffix": "text",
    "tables": "text[]",
    "target": "int4",
    "times": "int8[]",
    "unseen": "bool",
    "until": "int8",
    "users": "int4[]",
    "week": "date",
    "window": "int8",
    "windows": "int8[]",
}

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_DISCOVERY = re.compile(r"\bdiscovery\.")

# PostgreSQL plans a prepared statement for its parameters so many times, then perhaps for any. Ours are to be planned
# for theirs, an array of one user or of 50,000, always. (The setting plan_cache_mode would also hit the statements of
# the application's triggers and of foreign keys, which would be planned anew for every row that we write.)
CUSTOM_PLANS = 5

Row = dict[str, Any]


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
    def notice(self, message: str, /, *, detail: str = ..., hint: str = ...) -> None: ...
    def warning(self, message: str, /, *, detail: str = ..., hint: str = ...) -> None: ...
    def quote_ident(self, name: str, /) -> str: ...


@dataclass
class Plan:
    """A prepared statement: its parameters' names in their order, and how often it was executed."""

    prepared: Any
    parameters: list[str]
    uses: int = 0


class Database:
    """One session's database: runs SQL over plans that are prepared once a session.

    :param plpy: PL/Python's module
    :param schema: the schema of the discovery tables, unquoted
    """

    _plans: ClassVar[dict[tuple[str, str], Plan]] = {}

    def __init__(self, plpy: Plpy, schema: str) -> None:
        self.plpy = plpy
        self.schema = schema

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        """Run one statement and return its rows (none if it returns none).

        :raises plpy.SPIError: whatever PostgreSQL says against it
        """
        plan = self._plans.get((self.schema, sql))
        if plan is None or plan.uses == CUSTOM_PLANS:
            plan = self._plans[self.schema, sql] = self._prepare(sql)
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
        names: list[str] = []

        def placeholder(match: re.Match[str]) -> str:
            name = match[1]
            if name not in names:
                names.append(name)
            return f"(${names.index(name) + 1})"

        # The parameters first: the schema's name may look like one.
        text = _PARAMETER.sub(placeholder, sql)
        text = _DISCOVERY.sub(lambda _: self.plpy.quote_ident(self.schema) + ".", text)
        return Plan(self.plpy.prepare(text, [PARAMETER_TYPES[name] for name in names]), names)


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
            hint="Use a transaction that may write: a dry run writes, too, and rolls back.",
        )
