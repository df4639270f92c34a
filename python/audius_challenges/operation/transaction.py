"""A transaction's surroundings: what a run demands of one, what it sets for it, and what it reads before it begins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from audius_challenges.contract import Contract, read_contract
from audius_challenges.database import AnyPlan, Database, require_writable
from audius_challenges.engine.installation import Installation, present_installation, remembered_installation
from audius_challenges.engine.shares import Role
from audius_challenges.errors import (
    ACTIVE_SQL_TRANSACTION,
    INVALID_TRANSACTION_TERMINATION,
    OBJECT_NOT_IN_PREREQUISITE_STATE,
    ChallengeError,
)
from audius_challenges.settings import PREFIX, Settings, read_settings
from audius_challenges.sources import TABLES

_SLEEP_STEP = 0.5

_SET_DEFAULT = "SELECT pg_catalog.set_config('default_transaction_isolation', :isolation::text, false)"

_SETTINGS = AnyPlan("""
    SELECT
        set_config('datestyle', 'ISO', true),
        set_config('jit', 'off', true),
        set_config('row_security', 'off', true),
        set_config('work_mem', '64MB', true),
        set_config('lock_timeout', :lock_timeout::text, true)
""")

# What no SET clause of the functions gives back.
_CALLERS = """
    SELECT
        current_setting('row_security') AS row_security,
        current_setting('enable_seqscan') AS enable_seqscan
"""

_GIVE_BACK = """
    SELECT
        set_config('row_security', :row_security::text, true),
        set_config('enable_seqscan', :enable_seqscan::text, true)
"""

# To the planner, a table that was analyzed has the pages that it has at the moment, and reading the few of an empty one
# is cheapest, row by row. A first build fills it by the same statement, and a trigger of the application keeps its plan
# for the session: both would read more and more. A table that was never analyzed is taken for ten pages.
_FILLED = tuple(table.name for table in TABLES.values() if "INSERT" in table.privileges)

_IS_NEARLY_EMPTY = AnyPlan("""
    SELECT EXISTS (
        SELECT FROM pg_class AS relation
        WHERE relation.relname = ANY(:tables::text[])
            AND relation.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema::text)
            AND relation.relkind = 'r'
            AND relation.reltuples >= 0
            AND pg_relation_size(relation.oid) < 10 * current_setting('block_size')::bigint
    )
""")

# Advisory lock of a run, (class, object): two runs in one database never overlap.
LOCK = "1633903724, 1"

_HOLDER = f"""
    SELECT pid
    FROM pg_locks
    WHERE locktype = 'advisory'
        AND (classid, objid) = ({LOCK})
        AND objsubid = 2
        AND granted
        AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_LONGEST_DELAY = 3600

_DELAY = """
    SELECT
        extract(epoch FROM :delay::interval)::float8 AS delay,
        extract(epoch FROM current_setting('statement_timeout')::interval)::float8 AS timeout,
        current_setting('statement_timeout') AS setting,
        quote_ident(current_user) AS role
"""


@dataclass(frozen=True)
class Surroundings:
    """What a run reads once, before it begins.

    :ivar present: the database that this is; None where there is no `user_challenges`
    :ivar remembered: the database that the states are true of; None if nothing is remembered yet
    :ivar role: what this server is by the plan of shares, whatever is set
    """

    contract: Contract
    present: Installation | None
    remembered: Installation | None
    role: Role

    @classmethod
    def read(cls, db: Database) -> Surroundings:
        """Look around."""
        return cls(read_contract(db), present_installation(db), *remembered_installation(db))

    @property
    def are_moved(self) -> bool:
        """Whether the states are of another database, which was restored or copied into this one."""
        return bool(self.present and self.remembered and not self.remembered.is_here(self.present))

    def why_restoring(self, db: Database) -> tuple[str, str] | None:
        """The sign of a restore under way, if any, and a hint: nothing is written before triggers and keys are back."""
        if db.value(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pg_restore')"
        ):
            return "pg_restore is connected", "Wait until pg_restore has finished."
        if self.present is None:
            if self.remembered and "user_challenges" in self.contract.elsewhere:
                # It was moved to another schema: each challenge fails, and says where the table is.
                return None
            return f"there is no table {db.schema}.user_challenges", self.contract.where_it_is("user_challenges")
        if self.contract.keyless:
            tables = ", ".join(self.contract.keyless)
            hint = f"If no restore is under way, create the primary key of {tables}; nothing runs without it."
            return f"no primary key on {tables} yet", hint
        return self._why_incomplete()

    def _why_incomplete(self) -> tuple[str, str] | None:
        """What was there and is not."""
        if self.present is None or self.remembered is None:
            return None
        if gone := self.remembered.missing_tables(self.present, moved=self.contract.elsewhere):
            hint = "If no restore is under way, bring it back, or do without it: SELECT * FROM reconcile_challenges();"
            return f"{', '.join(gone)}, which was there, is missing", hint
        if self.are_moved and (missing := self.remembered.missing(self.present)):
            reason = f"user_challenges has no {', no '.join(missing)} yet"
            hint = (
                "If no restore is under way, create it;"
                " or SELECT * FROM reconcile_challenges(); accepts the table as it is."
            )
            return reason, hint
        return None


def require_usable_transaction(db: Database) -> Settings:
    """Demand a transaction in which a run can work, and read the settings."""
    require_writable(db)
    isolation = db.value("SELECT current_setting('transaction_isolation')")
    if isolation != "read committed":
        raise ChallengeError(
            f"a run requires READ COMMITTED, not {isolation.upper()}",
            sqlstate=ACTIVE_SQL_TRANSACTION,
            hint="Use READ COMMITTED, PostgreSQL's default: each step must see what was committed before it.",
        )
    return read_settings(db)


@contextmanager
def read_committed(db: Database) -> Iterator[None]:
    """Have the transactions of a tick READ COMMITTED, whatever the session's default is, and give that back."""
    set_search_path(db)
    default = db.value("SELECT current_setting('default_transaction_isolation')")
    if default == "read committed":
        yield
        return
    # SET TRANSACTION is not for subtransactions, which each statement of PL/Python is: the next transaction it is.
    db.rows(_SET_DEFAULT, isolation="read committed")
    db.plpy.commit()
    try:
        set_search_path(db)
        yield
    finally:
        db.rows(_SET_DEFAULT, isolation=default)
        db.plpy.commit()


def set_search_path(db: Database, *schemas: str) -> None:
    """The first statement in each transaction of a tick, where the caller's path is in force, and calls no function.

    :param schemas: further ones, behind that of the discovery tables; our own SQL needs none of them
    """
    path = ", ".join(map(db.plpy.quote_ident, ("pg_catalog", db.schema, *schemas, "pg_temp")))
    db.plpy.execute(f"SET LOCAL search_path = {path}")


def fills_empty_tables(db: Database) -> bool:
    """Whether some table that a run fills, or the application's triggers then, is about empty to the planner."""
    found: bool = db.value(_IS_NEARLY_EMPTY, schema=db.schema, tables=list(_FILLED))
    return found


def prepare(db: Database, settings: Settings, *, by_index: bool) -> None:
    """Set what a run needs, for this transaction; rows that policies hide are an error, and never taken for gone.

    :param by_index: whether statements are to be planned by indexes, whatever tables have at the moment
    """
    if settings.trigger_schemas:
        set_search_path(db, *settings.trigger_schemas)
    db.rows(_SETTINGS, lock_timeout=str(settings.lock_timeout))
    if by_index:
        db.rows("SELECT set_config('enable_seqscan', 'off', true)")


def prepare_own(db: Database, settings: Settings, *, by_index: bool) -> None:
    """The same in a transaction of a tick: what would fail at its commit fails its challenge instead."""
    prepare(db, settings, by_index=by_index)
    db.plpy.execute("SET CONSTRAINTS ALL IMMEDIATE")


@contextmanager
def prepared(db: Database, settings: Settings) -> Iterator[None]:
    """The same in the caller's transaction; other settings come back with the end of the function that was called."""
    set_search_path(db)
    before = db.row(_CALLERS)
    prepare(db, settings, by_index=fills_empty_tables(db))
    yield
    db.rows(_GIVE_BACK, **before)


def require_own_transactions(db: Database, procedure: str = "tick()") -> None:
    """Demand to be called where transactions can be ended.

    :param procedure: what was called
    :raises ChallengeError: inside a transaction block
    """
    try:
        db.plpy.commit()
    except Exception as error:
        if getattr(error, "sqlstate", None) != INVALID_TRANSACTION_TERMINATION:
            raise
        raise ChallengeError(
            f"{procedure} cannot run inside a transaction block",
            sqlstate=INVALID_TRANSACTION_TERMINATION,
            detail="It was called inside a transaction block, a function, or with other statements in one command.",
            hint="Call it alone, or use SELECT * FROM reconcile_challenges(); in a transaction."
            if procedure == "tick()"
            else "Call it alone.",
        ) from None


def lock_holder(db: Database) -> int | None:
    """The other process that holds the lock of a run, if any."""
    return next((row["pid"] for row in db.rows(_HOLDER)), None)


def under_way(db: Database) -> ChallengeError:
    """The error of what has to be alone, while a run holds the lock."""
    holder = lock_holder(db)
    return ChallengeError(
        "a run of audius_challenges is under way",
        sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
        hint="Try again in a moment."
        + (f" If process {holder} is not at work: SELECT pg_terminate_backend({holder});" if holder else ""),
    )


def read_delay(db: Database, delay: str) -> float:
    """The seconds that a tick is to sleep first; warns of a statement_timeout that may cut the tick off.

    CALL is one statement, whose timer nothing inside can move.

    :param delay: an interval, as text
    :raises ChallengeError: if it is too long, or negative
    """
    set_search_path(db)
    found = db.row(_DELAY, delay=delay)
    seconds: float = found["delay"]
    if not 0 <= seconds <= _LONGEST_DELAY:
        raise ChallengeError(f"delay must be between 0 and 1 hour, not {delay}")
    if found["timeout"]:
        with suppress(ChallengeError):  # An invalid setting is an error of the tick itself.
            budget = read_settings(db).time_budget / 1000
            if may_cut_off(found["timeout"], seconds, budget):
                db.plpy.warning(
                    f"statement_timeout is {found['setting']}, and may cut this tick off",
                    detail=f"It counts for a tick as a whole: {seconds:g} s of delay, and {budget:g} s"
                    f" ({PREFIX}time_budget) or more at work.",
                    hint=f"ALTER ROLE {found['role']} SET statement_timeout = 0;",
                )
    return seconds


def may_cut_off(timeout: float, delay: float, budget: float) -> bool:
    """Whether a statement_timeout may end a tick before its time budget is used up; all in seconds, 0 is no timeout."""
    return 0 < timeout <= delay + budget


def sleep(db: Database, seconds: float) -> None:
    """Sleep in short steps with commits: it pins no snapshot, and a cancel is heard."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0:
        set_search_path(db)
        db.rows("SELECT pg_sleep(:seconds::float8)", seconds=min(remaining, _SLEEP_STEP))
        db.plpy.commit()
