"""The entries from SQL: each function of the extension is one call to a function here.

A tick has a session of its own, so it imports no module that it does not need: the others import theirs when called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps

from audius_challenges.annotations import TYPE_CHECKING, Any
from audius_challenges.database import Database, Plpy, home_schema, require_writable
from audius_challenges.engine.state import ask_for
from audius_challenges.errors import ChallengeError, as_postgres_error, null_argument
from audius_challenges.operation import transaction
from audius_challenges.settings import read_settings

if TYPE_CHECKING:
    from typing import Concatenate, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")


def _from_sql(function: Callable[Concatenate[Database, P], R]) -> Callable[Concatenate[Plpy, P], R]:
    """Take plpy instead of a Database, and report errors as PostgreSQL does."""

    takes = function.__code__.co_argcount

    @wraps(function)
    def entry(plpy: Plpy, /, *arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            # SQL of 1.1.0 hands over the schema first: routines that have not changed since, and calls that began then.
            given = arguments[max(0, len(arguments) + 1 - takes) :]
            return function(Database(plpy, home_schema(plpy)), *given, **keywords)  # type: ignore[arg-type]
        except ChallengeError as error:
            reported = as_postgres_error(plpy, error)
        raise reported

    return entry


@_from_sql
def reconcile(
    db: Database,
    challenge_ids: Sequence[str | None] | None,
    full_scan: bool | None,
    dry_run: bool | None,
    as_of: str,
) -> list[tuple[Any, ...]]:
    """`reconcile_challenges()`."""
    for name, given in (("full_scan", full_scan), ("dry_run", dry_run)):
        if given is None:
            raise null_argument(name)
    from audius_challenges.operation import reconciling

    outcomes = reconciling.reconcile(db, challenge_ids, bool(full_scan), bool(dry_run), as_of)
    return [outcome.as_row() for outcome in outcomes]


@_from_sql
def wait(db: Database, delay: str | None) -> None:
    """What `audius_challenges.tick()` does first: see that it has transactions of its own, and sleep."""
    if delay is None:
        raise null_argument("delay")
    from audius_challenges.operation import ticking

    ticking.wait(db, transaction.read_delay(db, delay))


@_from_sql
def tick(db: Database) -> None:
    """`audius_challenges.tick()`."""
    from audius_challenges.operation import ticking

    ticking.tick(db)


@_from_sql
def help_out(db: Database) -> None:
    """`audius_challenges.help()`."""
    from audius_challenges.operation import helping

    helping.help_out(db)


@_from_sql
def begin_full_scan(db: Database, challenge_ids: Sequence[str | None] | None) -> list[str]:
    """`audius_challenges.begin_full_scan()`."""
    from audius_challenges.operation import reconciling

    return reconciling.begin_full_scan(db, challenge_ids)


@_from_sql
def start_from_now(
    db: Database, challenge_ids: Sequence[str | None] | None, dry_run: bool | None
) -> list[tuple[str, int]]:
    """`audius_challenges.start_from_now()`."""
    from audius_challenges.operation import reconciling

    if dry_run is None:
        raise null_argument("dry_run")
    return reconciling.start_from_now(db, challenge_ids, dry_run=dry_run)


@_from_sql
def plan_shares(db: Database, shares: int | None) -> int:
    """`audius_challenges.plan_shares()`."""
    from audius_challenges.operation import share_plan

    if shares is None:
        raise null_argument("shares")
    return share_plan.plan_shares(db, shares)


@_from_sql
def resend(db: Database) -> int:
    """`audius_challenges.resend()`."""
    from audius_challenges.operation import share_plan

    return share_plan.resend(db)


@_from_sql
def share_tables(db: Database) -> list[str]:
    """`audius_challenges.share_tables()`."""
    from audius_challenges.operation import share_statements

    return share_statements.share_tables(db)


@_from_sql
def share_publications(db: Database, shares: int | None) -> list[str]:
    """`audius_challenges.share_publications()`."""
    from audius_challenges.operation import share_statements

    return share_statements.share_publications(db, shares)


@_from_sql
def receive_share(db: Database, share: str | None, conninfo: str | None) -> list[str]:
    """`audius_challenges.receive_share()`."""
    from audius_challenges.operation import share_statements

    return share_statements.receive_share(db, share, conninfo)


@_from_sql
def join_share(db: Database, share: str | None, conninfo: str | None) -> list[str]:
    """`audius_challenges.join_share()`."""
    from audius_challenges.operation import share_joining

    return share_joining.join_share(db, share, conninfo)


@_from_sql
def adopt_share(db: Database, conninfo: str | None) -> list[str]:
    """`audius_challenges.adopt_share()`."""
    from audius_challenges.operation import share_joining

    return share_joining.adopt_share(db, conninfo)


@_from_sql
def finish_adoption(db: Database) -> list[str]:
    """`audius_challenges.finish_adoption()`."""
    from audius_challenges.operation import share_joining

    require_writable(db)
    return share_joining.finish_adoption(db)


@_from_sql
def drop_shares(db: Database) -> list[str]:
    """`audius_challenges.drop_shares()`."""
    from audius_challenges.operation import share_statements

    return share_statements.drop_shares(db)


@_from_sql
def share_why_not(db: Database) -> list[str]:
    """`audius_challenges.share_why_not()`."""
    from audius_challenges.engine.shares import read_role
    from audius_challenges.operation.share_guard import why_not

    settings = read_settings(db)
    role = read_role(db, settings)
    return why_not(db, settings, role.plan) if role.is_node else []


@_from_sql
def schedule(db: Database, every: str | None) -> list[dict[str, Any]]:
    """`schedule_challenges()`."""
    from audius_challenges.operation import scheduling

    require_writable(db)
    return scheduling.schedule(db, every)


@_from_sql
def unschedule(db: Database) -> list[dict[str, Any]]:
    """`unschedule_challenges()`."""
    from audius_challenges.operation import scheduling

    require_writable(db)
    return scheduling.unschedule(db)


@_from_sql
def trim_run_details(db: Database) -> int:
    """`audius_challenges.trim_run_details()`."""
    from audius_challenges.operation import scheduling

    require_writable(db)
    return scheduling.trim_run_details(db)


@_from_sql
def sync_catalog(
    db: Database, environment: str | None, challenge_ids: Sequence[str | None] | None
) -> list[tuple[str, str, str]]:
    """`sync_challenge_catalog()`."""
    from audius_challenges.contract import read_contract
    from audius_challenges.operation import catalog_sync

    if environment is None:
        raise null_argument("environment")
    require_writable(db)
    transaction.set_search_path(db)
    if lacking := catalog_sync.lacks(read_contract(db)):
        raise lacking
    differences = catalog_sync.compare_catalog(db, environment, challenge_ids)
    catalog_sync.align_catalog(db, environment, differences)
    if challenge_ids is not None:
        ask_for(db, [one for one in challenge_ids if one is not None])
    return [(one.id, "inserted" if one.missing else "updated", one.details) for one in differences]


@_from_sql
def status(db: Database) -> list[tuple[Any, ...]]:
    """The view `challenge_status`."""
    from audius_challenges.operation import status as challenge_status

    return challenge_status.status(db)


@_from_sql
def explain(
    db: Database, user_id: int | None, challenge_id: str | None, as_of: str | None = None
) -> list[tuple[Any, ...]]:
    """`explain_challenge()`; only tests ask by another clock than the present."""
    from audius_challenges.operation import explaining

    return explaining.explain(db, user_id, challenge_id, as_of)


@_from_sql
def tick_problem(db: Database) -> str | None:
    """The column `tick_problem` of the view."""
    from audius_challenges.operation.share_status import seen_from_here, troubles
    from audius_challenges.operation.stillness import find_stillness

    if stillness := find_stillness(db):
        return str(stillness)
    _, shares = seen_from_here(db)
    return "; ".join(troubles(shares)) or None


@_from_sql
def share_status(db: Database) -> list[tuple[Any, ...]]:
    """The view `share_status`."""
    from audius_challenges.operation import share_status as shares

    return shares.share_status(db)


@_from_sql
def metrics(db: Database) -> list[tuple[str, str, float]]:
    """`audius_challenges.metrics()`."""
    from audius_challenges.operation import metrics as samples

    return [sample.as_row() for sample in samples.metrics(db)]


@_from_sql
def trigger_needs(db: Database, role: str) -> list[tuple[Any, ...]]:
    """`audius_challenges.trigger_needs()`."""
    from audius_challenges.operation import triggers

    return [need.as_row() for need in triggers.trigger_needs(db, role)]


@_from_sql
def examine(db: Database) -> list[tuple[Any, ...]]:
    """`audius_challenges.doctor()`."""
    from audius_challenges.operation import doctor

    return [finding.as_row() for finding in doctor.examine(db)]


@_from_sql
def install(db: Database) -> None:
    """The last statement of the extension's script."""
    from audius_challenges.operation import installing

    transaction.set_search_path(db)
    installing.install(db)
