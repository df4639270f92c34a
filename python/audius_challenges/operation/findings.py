"""What a check of the doctor goes by, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from audius_challenges.catalog import CATALOG, Challenge, load_catalog
from audius_challenges.contract import Contract
from audius_challenges.database import Database, Row
from audius_challenges.engine.shares import Role
from audius_challenges.operation.share_status import ShareStatus, seen_from_here
from audius_challenges.operation.transaction import Surroundings
from audius_challenges.settings import Stored, stored_settings

CRITICAL, WARNING, NOTICE, OK = SEVERITIES = ("critical", "warning", "notice", "ok")


@dataclass(frozen=True)
class Finding:
    """A row of `doctor()`.

    :ivar statement: SQL that mends it as it stands; empty where a person has to decide, and `expected` says what
    """

    severity: str
    what: str
    found: str
    expected: str
    statement: str = ""

    def as_row(self) -> tuple[Any, ...]:
        """The columns as SQL returns them."""
        return self.severity, self.what, self.found, self.expected, self.statement


_ME = """
    SELECT
        quote_literal(current_user) AS literal,
        quote_ident(current_user) AS name,
        pg_has_role('pg_read_all_stats', 'USAGE') AS sees_sessions,
        has_function_privilege('audius_challenges.tick(interval)', 'EXECUTE') AS may_tick,
        current_user::text AS role,
        quote_ident(current_database()) AS database,
        pg_is_in_recovery() AS is_standby
"""


_PARTITIONED = """
    SELECT relation.relname::text AS name
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    WHERE namespace.nspname = :schema::text
        AND relation.relkind = 'p'
"""


class Examined:
    """The database that is examined: what several checks go by is looked up once, by the first of them."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.home = db.plpy.quote_ident(db.schema)

    @cached_property
    def me(self) -> Row:
        """Who asks, and what that role may."""
        return self.db.row(_ME)

    @cached_property
    def surroundings(self) -> Surroundings:
        """What a run goes by, too."""
        return Surroundings.read(self.db)

    @cached_property
    def _seen(self) -> tuple[Role, list[ShareStatus]]:
        return seen_from_here(self.db)

    @property
    def role(self) -> Role:
        """What this server is, where there are shares."""
        return self._seen[0]

    @property
    def shares(self) -> list[ShareStatus]:
        """How they fare."""
        return self._seen[1]

    @property
    def contract(self) -> Contract:
        """The discovery tables as they are."""
        return self.surroundings.contract

    @cached_property
    def catalog(self) -> Mapping[str, Challenge]:
        """The rows of `challenges`; none where they cannot be read as they should, which the check of tables says."""
        columns = self.contract.columns.get("challenges", {})
        return load_catalog(self.db) if CATALOG["challenges"] <= columns.keys() else {}

    @cached_property
    def partitioned(self) -> frozenset[str]:
        """The tables that take no index CONCURRENTLY."""
        return frozenset(row["name"] for row in self.db.rows(_PARTITIONED, schema=self.db.schema))

    @cached_property
    def facts(self) -> Row:
        """The schedule."""
        return self.db.row("SELECT * FROM audius_challenges.schedule_facts()")

    @cached_property
    def jobs(self) -> list[Row]:
        """The jobs of pg_cron that are ours, if it is in this database."""
        return self.db.rows("SELECT * FROM audius_challenges.job_facts()")

    @property
    def ticks(self) -> list[Row]:
        """The active ones that tick."""
        return [job for job in self.jobs if job["is_tick"] and job["active"]]

    @property
    def roles(self) -> list[str]:
        """The roles that tick, as far as one can see: those of the jobs; else the one that asks, if it may."""
        owners = {job["username"] for job in self.jobs if job["is_tick"]}
        return sorted(owners) or ([self.me["role"]] if self.me["may_tick"] else [])

    @cached_property
    def stored(self) -> list[Stored]:
        """Settings of ours that are kept for this database or for roles."""
        return stored_settings(self.db)

    def is_active(self, challenge_id: str) -> bool:
        """Whether a challenge runs here; each does, where nobody knows."""
        if self.role.is_elsewhere(challenge_id):
            return False
        challenge = self.catalog.get(challenge_id)
        return challenge.active if challenge else not self.catalog

    def ident(self, name: str) -> str:
        """A name, quoted if it needs quotes."""
        return self.db.plpy.quote_ident(name)

    def literal(self, text: str) -> str:
        """A text as SQL has it."""
        return self.db.plpy.quote_literal(text)
