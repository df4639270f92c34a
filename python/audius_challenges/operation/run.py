"""One run over the challenges: in the caller's transaction, or tick by tick in transactions of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from audius_challenges.annotations import Any
from audius_challenges.catalog import CATALOG, Challenge, absent_challenge, load_catalog, require_known
from audius_challenges.challenges import ANY_WEEK, CHALLENGES
from audius_challenges.contract import Contract
from audius_challenges.database import Database
from audius_challenges.engine import history
from audius_challenges.engine.feed import SLACK, SLACK_OF_NODES, Feed
from audius_challenges.engine.installation import remember_installation
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Processor, Work
from audius_challenges.engine.shares import Role, read_role
from audius_challenges.engine.state import (
    State,
    ask_for,
    exempt_if_nothing_completed,
    forget_looks,
    later_than,
    load_states,
    record_failure,
    remember_active,
    save_state,
)
from audius_challenges.engine.totals import COUNTS, Backfill, count_past, load_backfills
from audius_challenges.engine.users import Slices
from audius_challenges.engine.writing import require_room_for_block_numbers
from audius_challenges.errors import (
    EXTERNAL_ROUTINE_EXCEPTION,
    INSUFFICIENT_PRIVILEGE,
    OBJECT_NOT_IN_PREREQUISITE_STATE,
    ChallengeError,
    describe,
    is_operator_intervention,
    null_argument,
    sqlstate_of,
)
from audius_challenges.operation import last_tick, transaction
from audius_challenges.operation.transaction import LOCK, Surroundings
from audius_challenges.settings import PREFIX, Settings, unknown_settings, warn_of

_DISABLED = f"{PREFIX}enabled is off"
_ELSEWHERE = "done by the primary: not in the plan of shares"


# The challenges that have a first round.
WITH_ROUNDS = [processor.id for processor in CHALLENGES if isinstance(processor, PerUser)]


# Whatever the language of the message.
_HAS_ROW_SECURITY = """
    SELECT EXISTS (
        SELECT FROM pg_class AS relation
        INNER JOIN pg_namespace AS namespace
            ON relation.relnamespace = namespace.oid
        WHERE namespace.nspname = :schema::text
            AND relation.relrowsecurity
            AND row_security_active(relation.oid)
    )
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
    """Everything that the challenges of one run share.

    :ivar as_of: the run's clock
    :ivar backfills: how far the past of each challenge is counted
    :ivar works: what each challenge that has begun is doing
    :ivar began: when each challenge that has begun did, in seconds since 1970
    :ivar role: what this server is by the plan of shares
    :ivar missing: what of the nodes' rows has not come, by share
    :ivar is_first: whether no challenge has succeeded before
    """

    db: Database
    settings: Settings
    as_of: str
    full_scan: bool
    contract: Contract
    catalog: dict[str, Challenge] | ChallengeError
    states: dict[str, State]
    feed: Feed
    slices: Slices
    backfills: dict[str, Backfill]
    role: Role
    missing: dict[str, str] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    is_first: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_first = all(state.phase is None for state in self.states.values())

    @classmethod
    def begin(
        cls, db: Database, settings: Settings, surroundings: Surroundings, as_of: str, *, full_scan: bool = False
    ) -> Run:
        """Read what all challenges need, and forget the looks of another database."""
        contract, present = surroundings.contract, surroundings.present
        catalog: dict[str, Challenge] | ChallengeError
        try:
            contract.require(CATALOG)
            catalog = load_catalog(db)
            require_room_for_block_numbers(db, contract)
        except ChallengeError as error:
            catalog = error
        if present and present != surroundings.remembered and not contract.keyless:
            if surroundings.are_moved:
                forget_looks(db)
            remember_installation(db, present)
        states = load_states(db)
        role = surroundings.role.by(settings)
        slack = SLACK_OF_NODES if role.is_node else SLACK
        feed = Feed(db, [states[processor.id] for processor in CHALLENGES if processor.id in states], slack=slack)
        backfills, missing = load_backfills(db), _take_in(db, role)
        return cls(
            db, settings, as_of, full_scan, contract, catalog, states, feed, Slices(db), backfills, role, missing
        )

    def process(self, processor: Processor) -> Outcome:
        """Run one processor in a subtransaction and remember how it went.

        :raises Exception: only what is to stop the whole run at once: a cancel, a shutdown
        """
        if self.role.is_elsewhere(processor.id):
            return Outcome(processor.id, "inactive", error=_ELSEWHERE)
        if self.role.is_absorbed(processor.id):
            processor = self._absorbing(processor)
        began = time.monotonic()
        self.began.setdefault(processor.id, time.time())
        outcome = Outcome(processor.id)
        try:
            self._count_past(processor)
            self._resume(processor)
            with self.db.plpy.subtransaction():
                self._process(processor, outcome)
                self._remember(processor, outcome, time.monotonic() - began)
            self.is_first = False
        except Exception as error:
            if is_operator_intervention(error):
                raise
            description = self._described(error)
            outcome = Outcome(processor.id, "failed", error=description)
            self.works.pop(processor.id, None)
            record_failure(
                self.db,
                processor.id,
                description,
                began=self.began[processor.id],
                duration=time.monotonic() - began,
            )
        outcome.duration = time.monotonic() - began
        return outcome

    def exempt_first_build(self) -> None:
        """Limit no challenge's first round if nothing is completed when the database's first build begins."""
        if self.is_first:
            exempt_if_nothing_completed(self.db, self.states, WITH_ROUNDS)

    def is_unfinished(self, processor: Processor) -> bool:
        """Whether the processor's first build has slices left."""
        work = self.works.get(processor.id)
        return work is not None and work.is_unfinished

    def _absorbing(self, processor: Processor) -> Processor:
        """The same, where nodes derive it."""
        from audius_challenges.engine.absorbing import Absorbing  # noqa: PLC0415 - only where there are shares

        assert self.role.plan is not None  # noqa: S101 - there is no primary of shares without one
        return Absorbing(processor, self.role.plan)

    def _count_past(self, processor: Processor) -> None:
        """A step of counting what was completed before; a failure of the challenge does not take it back."""
        backfill = self.backfills.setdefault(processor.id, Backfill(processor.id))
        if not backfill.is_done and self.contract.has(COUNTS):
            with self.db.plpy.subtransaction():
                self.backfills[processor.id] = count_past(self.db, backfill)

    def _remember(self, processor: Processor, outcome: Outcome, duration: float) -> None:
        """In the transaction that writes the rewards: what is counted by day, and that there was something to tell."""
        work = self.works[processor.id]
        work.written.totals.save(self.db, processor.id)
        if work.written.rows or work.users_set_aside:
            history.record(
                self.db,
                processor.id,
                began=self.began[processor.id],
                duration=duration,
                days=self.settings.history_days,
                users_examined=outcome.users_examined,
                rows_inserted=outcome.rows_inserted,
                rows_updated=outcome.rows_updated,
                rows_completed=outcome.rows_completed,
                users_set_aside=work.users_set_aside,
            )

    def _resume(self, processor: Processor) -> None:
        """Outside the subtransaction that a failure takes back: that it was found active does not wait for success."""
        challenge = None if isinstance(self.catalog, ChallengeError) else self.catalog.get(processor.id)
        if challenge and challenge.active and not self._state(processor).found_active:
            with self.db.plpy.subtransaction():
                processor.resume(self.work(processor, challenge))
                remember_active(self.db, self._state(processor))

    def _process(self, processor: Processor, outcome: Outcome) -> None:
        if isinstance(self.catalog, ChallengeError):
            raise self.catalog
        self.exempt_first_build()
        challenge = self.catalog.get(processor.id) or absent_challenge(processor.id)
        work = self.works.get(processor.id) or self.work(processor, challenge)
        work.backfill = self.backfills[processor.id]
        if not challenge.active:
            outcome.status = "inactive" if processor.id in self.catalog else "absent"
            processor.pause(work)
            work.state.found_active = False
            if work.state.phase is None:
                work.state.is_exempt = False
        else:
            if not self.contract.is_whole:
                self.contract.require(processor.reads)
            _ = challenge.amount  # An invalid amount fails the challenge even if its processor never reads it (rule 5).
            processor.run(work)
            if work.waits_for:
                outcome.status, outcome.error = "inactive", work.waits_for
        save_state(self.db, work.state, work.as_of)
        self.works[processor.id] = work
        outcome.users_examined = work.users_examined
        outcome.rows_inserted = work.written.inserted
        outcome.rows_updated = work.written.updated
        outcome.rows_completed = work.written.completed

    def _described(self, error: Exception) -> str:
        description = describe(error)
        if sqlstate_of(error) == INSUFFICIENT_PRIVILEGE and "HINT:" not in description:
            role = self.db.row("SELECT quote_ident(current_user) AS name, quote_literal(current_user) AS text")
            if self.db.value(_HAS_ROW_SECURITY, schema=self.db.schema):
                hint = f"ALTER ROLE {role['name']} BYPASSRLS; a run has to see all rows, whatever policies there are."
            else:
                hint = (
                    f"SELECT audius_challenges.grant_run({role['text']}); grants what challenges need;"
                    " the application's triggers may need more."
                )
            description += f" HINT: {hint}"
        return description

    def _state(self, processor: Processor) -> State:
        return self.states.setdefault(processor.id, State(processor.id))

    def work(self, processor: Processor, challenge: Challenge) -> Work:
        """What the processor is handed."""
        return Work(
            db=self.db,
            feed=self.feed,
            slices=self.slices,
            challenge=challenge,
            state=self._state(processor),
            backfill=self.backfills.get(processor.id) or Backfill(processor.id),
            settings=self.settings,
            as_of=self.as_of,
            full_scan=self.full_scan,
            without_past=processor.without_past,
            is_node=self.role.is_node,
        )


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
            return _disabled(db, processors)
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
                    return _idle(db, processors, "; ".join(reasons))
                run = Run.begin(db, settings, surroundings, as_of, full_scan=full_scan)
                outcomes.extend(run.process(processor) for processor in processors)
                for share, problem in run.missing.items():
                    db.plpy.warning(problem, hint=_how_to_resend(share))
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
    transaction.require_own_transactions(db)
    began = time.monotonic()
    try:
        transaction.sleep(db, delay)
    except Exception as error:
        last_tick.cut_off(db, error, time.monotonic() - began)
        raise


def tick(db: Database) -> None:
    """What pg_cron runs: every challenge in a transaction of its own, within the time budget.

    :raises ChallengeError: naming the challenges that failed, after all have run; the others were committed
    """
    with transaction.read_committed(db):
        if error := _Tick(db).run():
            raise error


@dataclass
class _Tick:
    """One tick, and how far it has come.

    :ivar under_way: whose turn it is
    :ivar turns: turns that were committed
    """

    db: Database
    began: float = field(default_factory=time.monotonic)
    has_begun: bool = False
    under_way: Processor | None = None
    turns: int = 0

    def run(self) -> ChallengeError | None:
        """The tick, and the error in which it is to end."""
        db = self.db
        is_locked = False
        try:
            settings = transaction.require_usable_transaction(db)
            warn_of(db, settings.unknown)
            if not settings.enabled:
                _disabled(db, CHALLENGES)
                last_tick.does_nothing(db, _DISABLED)
                return None
            is_locked = db.value(f"SELECT pg_try_advisory_lock({LOCK})")
            if not is_locked:
                db.plpy.notice("another run of audius_challenges is under way: nothing was done")
                return None
            return self._run(settings)
        except Exception as error:
            last_tick.cut_off(
                db,
                error,
                time.monotonic() - self.began,
                at=self.under_way,
                turns=self.turns,
                has_begun=self.has_begun,
            )
            raise
        finally:
            if is_locked:
                db.rows(f"SELECT pg_catalog.pg_advisory_unlock({LOCK})")

    def _run(self, settings: Settings) -> ChallengeError | None:
        db = self.db
        processors = _done_here(db, settings)
        last_tick.begin(db, processors)
        self.has_begun = True
        transaction.set_search_path(db)
        by_index = transaction.fills_empty_tables(db)
        transaction.prepare_own(db, settings, by_index=by_index)
        surroundings = Surroundings.read(db)
        if restoring := surroundings.why_restoring(db):
            return last_tick.is_restoring(db, *restoring)
        if reasons := why_not(db, settings, surroundings.role):
            _stopped(db, surroundings.role, reasons)
            return None
        run = Run.begin(db, settings, surroundings, db.value("SELECT now()::text"))
        failures: dict[str, str] = {}
        # Each of them once; then round after round those whose first build goes on, while there is time.
        queue = deque(last_tick.in_turn(processors, run.states))
        while queue:
            self.under_way = processor = queue.popleft()
            outcome = run.process(processor)
            if outcome.status == "failed" and outcome.error:
                failures[processor.id] = outcome.error
            elif run.is_unfinished(processor):
                queue.append(processor)
            if self.turns + 1 >= len(processors) and (time.monotonic() - self.began) * 1000 >= settings.time_budget:
                queue.clear()
            if not queue:
                _beat(db, run.role, _says(list(failures)))
                last_tick.end(db)
            db.plpy.commit()
            self.turns += 1
            if queue:
                transaction.set_search_path(db)
                transaction.prepare_own(db, settings, by_index=by_index)
                if run.role.is_node and (reasons := why_not(db, settings, role := read_role(db, settings))):
                    _stopped(db, role, reasons)
                    return None
        return _failed(failures, run.missing) if failures or run.missing else None


def why_not(db: Database, settings: Settings, role: Role) -> list[str]:
    """Why no run may work here at the moment: on a node of shares alone there may be reasons.

    :param role: what this server is now, whatever is set
    """
    role = role.by(settings)
    if not role.is_node:
        return []
    from audius_challenges.operation import share_guard  # noqa: PLC0415 - only where there are shares

    return share_guard.why_not(db, settings, role.plan)


def _take_in(db: Database, role: Role) -> dict[str, str]:
    """On the primary: what nodes have sent, as far as nothing is missing; what is, by share."""
    if role.plan is None or role.is_node:
        return {}
    from audius_challenges.engine.intake import take_in  # noqa: PLC0415 - only where there are shares

    return take_in(db, role.plan)


def _done_here(db: Database, settings: Settings) -> Sequence[Processor]:
    """The challenges that a tick runs: on a node of shares those of the plan."""
    if settings.share is None:
        return CHALLENGES
    role = read_role(db, settings)
    return [processor for processor in CHALLENGES if not role.is_elsewhere(processor.id)]


def _beat(db: Database, role: Role, says: str | None = None) -> None:
    """Tell the other servers of shares, where there are any, that a tick has ended.

    :param says: of a node, what is wrong there
    """
    if not (role.is_hub or role.is_node):
        return
    from audius_challenges.operation import share_beats  # noqa: PLC0415 - only where there are shares

    if role.is_hub:
        share_beats.beat(db)
    else:
        share_beats.send_beat(db, role.plan, says)


def _says(failures: Sequence[str]) -> str | None:
    """What a node tells the primary of challenges that have failed; why they have, it tells whoever asks it."""
    return f"failing: {', '.join(failures)}" if failures else None


def _stopped(db: Database, role: Role, reasons: Sequence[str]) -> None:
    """Say, remember and tell the primary that a node does nothing; commits."""
    _beat(db, role, "; ".join(reasons))
    last_tick.is_stopped(db, "; ".join(reasons))


def _how_to_resend(share: str) -> str:
    return f"On the node whose {PREFIX}share is {share}: SELECT audius_challenges.resend();"


def _failed(failures: dict[str, str], missing: dict[str, str]) -> ChallengeError:
    """The error in which a tick ends, after all challenges have run.

    :param failures: of challenges
    :param missing: what has not come from nodes, by share
    """
    failed = [processor.id for processor in CHALLENGES if processor.id in failures]
    messages, details, hints = [], [f"{challenge}: {failures[challenge]}" for challenge in failed], []
    if failed:
        messages.append(f"{len(failed)} of {len(CHALLENGES)} challenges failed: {', '.join(failed)}")
        hints.append("The other challenges were committed. See SELECT * FROM challenge_status;")
    if missing:
        messages += missing.values()
        details.append("What came before it was written, what has come after it waits.")
        hints += [_how_to_resend(share) for share in missing]
    return ChallengeError(
        "; ".join(messages),
        sqlstate=EXTERNAL_ROUTINE_EXCEPTION,
        detail="\n".join(details),
        hint=" ".join(hints),
    )


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
        if not db.value(f"SELECT pg_try_advisory_xact_lock({LOCK})"):
            raise transaction.under_way(db)
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


def _disabled(db: Database, processors: Iterable[Processor]) -> list[Outcome]:
    return _idle(db, processors, _DISABLED)


def _idle(db: Database, processors: Iterable[Processor], reason: str) -> list[Outcome]:
    """What comes of a run that does nothing."""
    db.plpy.notice(f"{reason}: nothing was done")
    return [Outcome(processor.id, "inactive", error=reason) for processor in processors]
