"""One run over the processors: in the caller's transaction, or tick by tick in transactions of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from audius_challenges.catalog import Challenge, load_catalog, no_challenge
from audius_challenges.changes import distrust_checkpoints
from audius_challenges.contract import CATALOG, Contract, read_contract
from audius_challenges.database import Database, require_writable
from audius_challenges.errors import (
    ACTIVE_SQL_TRANSACTION,
    EXTERNAL_ROUTINE_EXCEPTION,
    INVALID_TRANSACTION_TERMINATION,
    NULL_VALUE_NOT_ALLOWED,
    OBJECT_NOT_IN_PREREQUISITE_STATE,
    ChallengeError,
    describe,
    is_operator_intervention,
)
from audius_challenges.processor import Processor, Work
from audius_challenges.processors import PROCESSORS
from audius_challenges.settings import PREFIX, Settings, read_settings
from audius_challenges.state import (
    State,
    load_states,
    present_installation,
    record_failure,
    remember_installation,
    remembered_installation,
    save_state,
)

# Advisory lock of a run, (class, object): two runs in one database never overlap.
LOCK = "1633903724, 1"

_SLEEP_STEP = 0.5

_SESSION = f"""
    SELECT
        set_config('search_path', 'pg_catalog, ' || quote_ident(:name) || ', pg_temp', true),
        set_config('datestyle', 'ISO', true),
        set_config('jit', 'off', true),
        set_config('work_mem', '64MB', true),
        set_config('lock_timeout', coalesce(nullif(current_setting('{PREFIX}lock_timeout', true), ''), '2s'), true)
"""


@dataclass
class Outcome:
    """What a run did for one challenge: a row of `reconcile_challenges()`. `duration` is in seconds."""

    challenge_id: str
    status: str = "ok"
    users_examined: int = 0
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_completed: int = 0
    duration: float = 0.0
    error: str | None = None

    def as_row(self) -> tuple[Any, ...]:
        """The columns as SQL returns them."""
        return (
            self.challenge_id,
            self.status,
            self.users_examined,
            self.rows_inserted,
            self.rows_updated,
            self.rows_completed,
            f"{self.duration:.6f} seconds",
            self.error,
        )


class _DryRunEndsError(Exception):
    """Raised to roll a dry run back."""


@dataclass
class Run:
    """Everything that the processors of one run share.

    :ivar as_of: the run's clock
    :ivar works: what each processor that has begun is doing
    """

    db: Database
    settings: Settings
    as_of: str
    full_scan: bool
    contract: Contract
    catalog: dict[str, Challenge] | ChallengeError
    states: dict[str, State]
    works: dict[str, Work] = field(default_factory=dict)

    @classmethod
    def begin(cls, db: Database, settings: Settings, as_of: str, *, full_scan: bool = False) -> Run:
        """Read what all processors need, and see whether checkpoints are still to be trusted."""
        contract = read_contract(db)
        catalog: dict[str, Challenge] | ChallengeError
        try:
            contract.require(CATALOG)
            catalog = load_catalog(db)
        except ChallengeError as error:
            catalog = error
        present = present_installation(db)
        remembered = remembered_installation(db)
        if present and present != remembered and not contract.keyless:
            if remembered and not remembered.is_here(present):
                distrust_checkpoints(db)
            remember_installation(db, present)
        return cls(db, settings, as_of, full_scan, contract, catalog, load_states(db))

    def process(self, processor: Processor) -> Outcome:
        """Run one processor in a subtransaction and remember how it went.

        :raises Exception: only what is to stop the whole run at once: a cancel, a shutdown
        """
        began = time.monotonic()
        outcome = Outcome(processor.id)
        try:
            with self.db.plpy.subtransaction():
                self._process(processor, outcome)
        except Exception as error:
            if is_operator_intervention(error):
                raise
            outcome = Outcome(processor.id, "failed", error=describe(error))
            self.works.pop(processor.id, None)
            record_failure(self.db, processor.id, describe(error))
        outcome.duration = time.monotonic() - began
        return outcome

    def is_unfinished(self, processor: Processor) -> bool:
        """Whether the processor's first build has slices left."""
        work = self.works.get(processor.id)
        return work is not None and work.is_unfinished

    def _process(self, processor: Processor, outcome: Outcome) -> None:
        if isinstance(self.catalog, ChallengeError):
            raise self.catalog
        challenge = self.catalog.get(processor.id) or no_challenge(processor.id)
        work = self.works.get(processor.id) or self.work(processor, challenge)
        if not challenge.active:
            outcome.status = "inactive" if processor.id in self.catalog else "absent"
            processor.pause(work)
        else:
            self.contract.require(processor.reads)
            self.contract.require_keys()
            _ = challenge.amount  # of every challenge an error if it is none, read by the processor or not (rule 5)
            processor.run(work)
        save_state(self.db, work.state)
        self.works[processor.id] = work
        outcome.users_examined = work.users_examined
        outcome.rows_inserted = work.written.inserted
        outcome.rows_updated = work.written.updated
        outcome.rows_completed = work.written.completed

    def work(self, processor: Processor, challenge: Challenge) -> Work:
        """What the processor is handed."""
        return Work(
            db=self.db,
            contract=self.contract,
            challenge=challenge,
            state=self.states.get(processor.id) or State(processor.id),
            settings=self.settings,
            as_of=self.as_of,
            full_scan=self.full_scan,
        )


def reconcile(
    db: Database, challenge_ids: Sequence[str | None] | None, full_scan: bool, dry_run: bool, as_of: str
) -> list[Outcome]:
    """One run in the caller's transaction, a subtransaction for each processor.

    :param challenge_ids: which challenges; None: all of them
    :param full_scan: examine every user, not only what changed and a slice of the sweep
    :param dry_run: roll everything back at the end
    :param as_of: the run's clock, a timestamptz as text
    :raises ChallengeError: on bad input, on a standby, in a transaction that is not READ COMMITTED
    """
    processors = _chosen(challenge_ids)
    settings = _open(db)
    _require_past(db, as_of)
    if not settings.enabled:
        return _disabled(db, processors)
    if not db.value(f"SELECT pg_try_advisory_xact_lock({LOCK})"):
        db.plpy.notice("another run of audius_challenges is under way: nothing was done")
        return [Outcome(processor.id, "busy") for processor in processors]
    outcomes: list[Outcome] = []
    try:
        with db.plpy.subtransaction():
            run = Run.begin(db, settings, as_of, full_scan=full_scan)
            outcomes.extend(run.process(processor) for processor in processors)
            if dry_run:
                raise _DryRunEndsError  # noqa: TRY301 - the way out of a subtransaction
    except _DryRunEndsError:
        pass
    return outcomes


def wait(db: Database, delay: float) -> None:
    """What a tick does first.

    :param delay: seconds to sleep
    :raises ChallengeError: if it has no transactions of its own
    """
    _require_own_transactions(db)
    _sleep(db, delay)


def tick(db: Database) -> None:
    """What pg_cron runs: every processor in a transaction of its own, within the time budget.

    :raises ChallengeError: naming the processors that failed, after all have run; what the others did stays
    """
    began = time.monotonic()
    set_search_path(db)
    settings = _open(db)
    if not settings.enabled:
        _disabled(db, PROCESSORS)
        return
    if not db.value(f"SELECT pg_try_advisory_lock({LOCK})"):
        db.plpy.notice("another run of audius_challenges is under way: nothing was done")
        return
    try:
        if _is_being_restored(db):
            return
        _prepare_own_transaction(db)
        run = Run.begin(db, settings, db.value("SELECT now()::text"))
        failures: dict[str, str] = {}
        # Each of them once; then round after round those whose first build goes on, while there is time.
        queue = deque(PROCESSORS)
        turns = 0
        while queue and (turns < len(PROCESSORS) or (time.monotonic() - began) * 1000 < settings.time_budget):
            processor = queue.popleft()
            turns += 1
            outcome = run.process(processor)
            if outcome.error:
                failures[processor.id] = outcome.error
            elif run.is_unfinished(processor):
                queue.append(processor)
            db.plpy.commit()
            _prepare_own_transaction(db)
    finally:
        db.rows(f"SELECT pg_catalog.pg_advisory_unlock({LOCK})")
    if failures:
        raise ChallengeError(
            f"{len(failures)} of {len(PROCESSORS)} challenges failed: {', '.join(failures)}",
            sqlstate=EXTERNAL_ROUTINE_EXCEPTION,
            detail="\n".join(f"{failed}: {error}" for failed, error in failures.items()),
            hint="What the others did stays. SELECT * FROM challenge_status;",
        )


def start_from_now(db: Database, challenge_ids: Sequence[str | None] | None) -> list[str]:
    """Take what there is as done by somebody else: checkpoints at the present, no first build.

    :returns: the ids of the challenges that start from now
    :raises ChallengeError: as `reconcile` does, and while a run is under way
    """
    processors = _chosen(challenge_ids)
    settings = _open(db)
    if not db.value(f"SELECT pg_try_advisory_xact_lock({LOCK})"):
        raise ChallengeError(
            "a run of audius_challenges is under way",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="Try again in a moment.",
        )
    run = Run.begin(db, settings, db.value("SELECT now()::text"))
    if isinstance(run.catalog, ChallengeError):
        raise run.catalog
    started = []
    for processor in processors:
        if processor.id in run.catalog:
            run.contract.require(processor.reads)
            work = run.work(processor, run.catalog[processor.id])
            processor.start_from_now(work)
            save_state(db, work.state)
            started.append(processor.id)
    return started


def _chosen(challenge_ids: Sequence[str | None] | None) -> list[Processor]:
    if challenge_ids is None:
        return list(PROCESSORS)
    known = [processor.id for processor in PROCESSORS]
    for challenge_id in challenge_ids:
        if challenge_id not in known:
            raise ChallengeError(
                f'unknown challenge id: "{challenge_id}"' if challenge_id is not None else "a challenge id is null",
                hint=f"The challenges are {', '.join(known)}.",
            )
    return [processor for processor in PROCESSORS if processor.id in challenge_ids]


def _open(db: Database) -> Settings:
    """Demand a transaction in which a run can work, and read the settings."""
    require_writable(db)
    isolation = db.value("SELECT current_setting('transaction_isolation')")
    if isolation != "read committed":
        raise ChallengeError(
            f"the transaction's isolation level is {isolation}",
            sqlstate=ACTIVE_SQL_TRANSACTION,
            hint="Use READ COMMITTED, PostgreSQL's default: each step has to see what was committed before it.",
        )
    settings = read_settings(db)
    _prepare_transaction(db)
    return settings


def set_search_path(db: Database) -> None:
    """The first statement in each transaction of a tick, where the caller's path is in force, and calls no function."""
    db.plpy.execute(f"SET LOCAL search_path = pg_catalog, {db.plpy.quote_ident(db.schema)}, pg_temp")


def _prepare_transaction(db: Database) -> None:
    db.rows(_SESSION, name=db.schema)


def _prepare_own_transaction(db: Database) -> None:
    """The same in a transaction of a tick: what would fail at its commit fails its processor instead."""
    set_search_path(db)
    _prepare_transaction(db)
    db.plpy.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _require_past(db: Database, as_of: str | None) -> None:
    if as_of is None:
        raise ChallengeError("as_of is null", sqlstate=NULL_VALUE_NOT_ALLOWED, hint="Its default is now().")
    clock = db.row("SELECT isfinite(:as_of) AS is_finite, :as_of > clock_timestamp() AS is_future", as_of=as_of)
    if not clock["is_finite"] or clock["is_future"]:
        raise ChallengeError(
            f"as_of is {'in the future' if clock['is_finite'] else 'not a point in time'}: {as_of}",
            hint="It is the clock of the run: now or a time in the past.",
        )


def _disabled(db: Database, processors: Iterable[Processor]) -> list[Outcome]:
    reason = f"{PREFIX}enabled is off"
    db.plpy.notice(f"{reason}: nothing was done")
    return [Outcome(processor.id, "inactive", error=reason) for processor in processors]


def _require_own_transactions(db: Database) -> None:
    try:
        db.plpy.commit()
    except Exception as error:
        if getattr(error, "sqlstate", None) != INVALID_TRANSACTION_TERMINATION:
            raise
        raise ChallengeError(
            "tick() needs transactions of its own",
            sqlstate=INVALID_TRANSACTION_TERMINATION,
            detail="It was called inside a transaction block, a function, or with other statements in one command.",
            hint="Call it alone, or use SELECT * FROM reconcile_challenges(); in a transaction.",
        ) from None


def _sleep(db: Database, seconds: float) -> None:
    """Sleep in short steps with commits: it pins no snapshot, and a cancel is heard."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0:
        set_search_path(db)
        db.rows("SELECT pg_sleep(:seconds)", seconds=min(remaining, _SLEEP_STEP))
        db.plpy.commit()


def _is_being_restored(db: Database) -> bool:
    """Whether a restore is under way: a tick would write before the application's triggers are back."""
    reason = None
    remembered, present = remembered_installation(db), present_installation(db)
    if db.value(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'pg_restore')"
    ):
        reason = "pg_restore is connected"
    elif present is None:
        reason = f"there is no table {db.schema}.user_challenges"
    elif keyless := read_contract(db).keyless:
        reason = f"no primary key on {', '.join(keyless)} yet"
    elif remembered and not remembered.is_here(present) and (missing := remembered.guards - present.guards):
        reason = f"user_challenges has no {', '.join(sorted(missing))} yet"
    if reason:
        db.plpy.notice(
            f"{reason}: a restore seems to be under way, nothing was done",
            hint="If it is not: SELECT * FROM reconcile_challenges(); takes the tables as they are from then on.",
        )
    return reason is not None
