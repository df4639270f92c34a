"""Runs in the caller's transaction: to reconcile, and to decide from where challenges begin."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from audius_challenges.catalog import absent_challenge, require_known
from audius_challenges.challenges import ANY_WEEK, CHALLENGES
from audius_challenges.database import Database
from audius_challenges.engine import history
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Processor
from audius_challenges.engine.shares import Role, how_to_mend
from audius_challenges.engine.state import State, ask_for, later_than, save_state
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError, null_argument
from audius_challenges.operation import transaction
from audius_challenges.operation.run import Outcome, Run, disabled, idle, why_not
from audius_challenges.operation.transaction import LOCK, Surroundings
from audius_challenges.settings import unknown_settings, warn_of


class _DryRunEndsError(Exception):
    """Raised to roll a dry run back."""


def reconcile(
    db: Database, challenge_ids: Sequence[str | None] | None, full_scan: bool, dry_run: bool, as_of: str
) -> list[Outcome]:
    """One run in the caller's transaction, a subtransaction for each challenge.

    :param challenge_ids: which challenges; None: all of them
    :param full_scan: examine every user, not only what changed and a slice of the sweep
    :param dry_run: roll everything back at the end
    :param as_of: the run's clock, a timestamptz as text
    :raises ChallengeError: on bad input, on a standby, in a transaction that is not READ COMMITTED
    """
    processors = _in_run_order(challenge_ids)
    settings = transaction.require_usable_transaction(db)
    with transaction.prepared(db, settings):
        _require_past(db, as_of)
        warn_of(db, unknown_settings(db))
        if not settings.enabled:
            return disabled(db, processors)
        if not db.value(f"SELECT pg_try_advisory_xact_lock({LOCK})"):
            db.plpy.notice("another run of audius_challenges is under way: nothing was done")
            return [Outcome(processor.id, "busy") for processor in processors]
        _require_forward(db, processors, as_of)
        outcomes: list[Outcome] = []
        try:
            with db.plpy.subtransaction():
                if challenge_ids is not None:
                    ask_for(db, [processor.id for processor in processors])
                surroundings = Surroundings.read(db)
                if reasons := why_not(db, settings, surroundings.role):
                    return idle(db, processors, "; ".join(reasons))
                run = Run.begin(db, settings, surroundings, as_of, full_scan=full_scan)
                outcomes.extend(run.process(processor) for processor in processors)
                for share, problem in run.missing.items():
                    db.plpy.warning(problem.text, hint=how_to_mend(share, problem.mended_by))
                if dry_run:
                    raise _DryRunEndsError  # noqa: TRY301 - the way out of a subtransaction
        except _DryRunEndsError:
            pass
        return outcomes


def start_from_now(
    db: Database, challenge_ids: Sequence[str | None] | None, *, dry_run: bool = False
) -> list[tuple[str, int]]:
    """Take what there is as done by somebody else: follow changes from the present on, no first build.

    :param dry_run: roll everything back at the end
    :returns: the ids of the challenges that start from now, and how many deeds of each are passed over
    :raises ChallengeError: as `reconcile` does, and while a run is under way
    """
    processors = _in_run_order(challenge_ids)
    settings = transaction.require_usable_transaction(db)
    with transaction.prepared(db, settings):
        warn_of(db, unknown_settings(db))
        _require_no_run(db)
        started: list[tuple[str, int]] = []
        try:
            with db.plpy.subtransaction():
                ask_for(db, [processor.id for processor in processors])
                surroundings = Surroundings.read(db)
                _require_here(surroundings.role.by(settings), processors)
                run = Run.begin(db, settings, surroundings, db.value("SELECT now()::text"))
                started.extend(_start_from_now(run, processors))
                if dry_run:
                    raise _DryRunEndsError  # noqa: TRY301 - the way out of a subtransaction
        except _DryRunEndsError:
            pass
        return started


def begin_full_scan(db: Database, challenge_ids: Sequence[str | None] | None) -> list[str]:
    """Have every user examined again, slice by slice, by the ticks that come, and by helpers.

    :returns: the ids of the challenges for which that begins: those that are active and go by users
    :raises ChallengeError: as `start_from_now` does
    """
    processors = _in_run_order(challenge_ids)
    settings = transaction.require_usable_transaction(db)
    with transaction.prepared(db, settings):
        warn_of(db, unknown_settings(db))
        _require_no_run(db)
        ask_for(db, [processor.id for processor in processors])
        run = Run.begin(db, settings, Surroundings.read(db), db.value("SELECT now()::text"))
        return list(_begin_full_scan(run, processors))


def _begin_full_scan(run: Run, processors: Iterable[Processor]) -> Iterator[str]:
    if isinstance(run.catalog, ChallengeError):
        raise run.catalog
    for processor in processors:
        challenge = run.catalog.get(processor.id)
        if challenge and challenge.active and isinstance(processor, PerUser):
            state = run.states.setdefault(processor.id, State(processor.id))
            if state.phase is not None:
                processor.begin_full_scan(run.work(processor, challenge))
                save_state(run.db, state, run.as_of)
            yield processor.id


def _require_no_run(db: Database) -> None:
    """Take the lock of a run until the transaction ends.

    :raises ChallengeError: if somebody else has it
    """
    if not db.value(f"SELECT pg_try_advisory_xact_lock({LOCK})"):
        raise transaction.under_way(db)


def _start_from_now(run: Run, processors: Iterable[Processor]) -> Iterator[tuple[str, int]]:
    if isinstance(run.catalog, ChallengeError):
        raise run.catalog
    run.exempt_first_build()
    for processor in processors:
        if processor.id not in run.catalog:
            # Its row may come any time: what is there now can be passed over before it does.
            if not run.contract.has(processor.reads):
                continue
            deeds = processor.pass_over(run.work(processor, absent_challenge(processor.id)))
            if deeds is not None:
                yield processor.id, deeds
        else:
            if not run.contract.is_whole:
                run.contract.require(processor.reads)
            began = time.time()
            work = run.work(processor, run.catalog[processor.id])
            passed_over = processor.start_from_now(work)
            save_state(run.db, work.state, work.as_of)
            history.record(
                run.db,
                processor.id,
                began=began,
                duration=time.time() - began,
                days=run.settings.history_days,
                status=history.STARTED_FROM_NOW,
            )
            yield processor.id, passed_over


def _in_run_order(challenge_ids: Sequence[str | None] | None) -> list[Processor]:
    if challenge_ids is None:
        return list(CHALLENGES)
    require_known(challenge_ids, [processor.id for processor in CHALLENGES])
    return [processor for processor in CHALLENGES if processor.id in challenge_ids]


def _require_past(db: Database, as_of: str | None) -> None:
    if as_of is None:
        raise null_argument("as_of")
    clock = db.row(
        """
        SELECT
            isfinite(:as_of::timestamptz) AS is_finite,
            :as_of::timestamptz > clock_timestamp() AS is_future
        """,
        as_of=as_of,
    )
    hint = "as_of is the clock of the run."
    if not clock["is_finite"]:
        raise ChallengeError(f"as_of must be a finite timestamp, not {as_of}", hint=hint)
    if clock["is_future"]:
        raise ChallengeError(f"as_of must not be in the future: {as_of}", hint=hint)


def _require_forward(db: Database, processors: Iterable[Processor], as_of: str) -> None:
    """Demand that no challenge goes back in time but weekly trending, which pays a week whenever it is asked to."""
    later = later_than(db, as_of)
    if back := [processor.id for processor in processors if processor.id in later and processor.id not in ANY_WEEK]:
        raise ChallengeError(
            f"as_of must not be earlier than the last run of {', '.join(back)}: {as_of}",
            detail="Nothing was done. Only weekly trending can be run for the past.",
            hint=f"Name no other challenge: reconcile_challenges('{{{','.join(ANY_WEEK)}}}', as_of => ...);",
        )


def _require_here(role: Role, processors: Iterable[Processor]) -> None:
    """Demand that none of these challenges is derived on other servers.

    :raises ChallengeError: on a node of shares, and on the primary for what nodes derive
    """
    if role.is_node:
        raise ChallengeError(
            "this server is a node of shares: what starts from now is decided on the primary",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="Call it there, while its plan has no shares: SELECT audius_challenges.plan_shares(0);",
        )
    shared = [processor.id for processor in processors if role.is_absorbed(processor.id)]
    if shared:
        others = [processor.id for processor in processors if processor.id not in shared]
        all_of_them = "SELECT audius_challenges.plan_shares(0); start from now, and plan the shares again."
        just_these = f"SELECT * FROM audius_challenges.start_from_now('{{{','.join(others)}}}'); or, for all: "
        raise ChallengeError(
            f"nodes of shares derive {', '.join(shared)}, and follow changes already",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            detail="Nothing was done.",
            hint=f"{just_these if others else ''}{all_of_them}",
        )
