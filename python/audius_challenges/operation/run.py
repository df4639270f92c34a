"""What one run over the challenges shares, whether it is a tick, in the caller's transaction, or a helper's."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from audius_challenges.annotations import Any
from audius_challenges.catalog import CATALOG, Challenge, absent_challenge, load_catalog
from audius_challenges.challenges import CHALLENGES
from audius_challenges.contract import Contract
from audius_challenges.database import Database
from audius_challenges.engine import history
from audius_challenges.engine.feed import SLACK, SLACK_OF_NODES, Feed
from audius_challenges.engine.installation import remember_installation
from audius_challenges.engine.open_slices import OpenSlices
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Processor, Work
from audius_challenges.engine.shares import Problem, Role
from audius_challenges.engine.state import (
    State,
    exempt_if_nothing_completed,
    forget_looks,
    load_states,
    record_failure,
    remember_active,
    remember_turn,
    save_state,
)
from audius_challenges.engine.totals import COUNTS, Backfill, count_past, load_backfills
from audius_challenges.engine.users import Slices
from audius_challenges.engine.writing import require_room_for_block_numbers
from audius_challenges.errors import (
    INSUFFICIENT_PRIVILEGE,
    ChallengeError,
    describe,
    is_operator_intervention,
    sqlstate_of,
)
from audius_challenges.operation.transaction import Surroundings
from audius_challenges.settings import PREFIX, Settings

DISABLED = f"{PREFIX}enabled is off"
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


@dataclass
class Run:
    """Everything that the challenges of one run share.

    :ivar as_of: the run's clock
    :ivar open_slices: users whom several sessions examine
    :ivar backfills: how far the past of each challenge is counted
    :ivar works: what each challenge that has begun is doing
    :ivar began: when each challenge that has begun did, in seconds since 1970
    :ivar role: what this server is by the plan of shares
    :ivar missing: what is wrong with what nodes have sent, by share
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
    role: Role
    slices: Slices = field(init=False)
    open_slices: OpenSlices = field(init=False)
    backfills: dict[str, Backfill] = field(init=False)
    missing: dict[str, Problem] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    is_first: bool = field(init=False)

    def __post_init__(self) -> None:
        self.slices, self.open_slices = Slices(self.db), OpenSlices(self.db, self.states.values())
        self.backfills = load_backfills(self.db)
        self.is_first = all(state.phase is None for state in self.states.values())

    @classmethod
    def begin(
        cls, db: Database, settings: Settings, surroundings: Surroundings, as_of: str, *, full_scan: bool = False
    ) -> Run:
        """Read what all challenges need, and forget the looks of another database."""
        contract, present = surroundings.contract, surroundings.present
        catalog = _read_catalog(db, contract)
        if present and present != surroundings.remembered and not contract.keyless:
            if surroundings.are_moved:
                forget_looks(db)
            remember_installation(db, present)
        states = load_states(db)
        role = surroundings.role.by(settings)
        slack = SLACK_OF_NODES if role.is_node else SLACK
        feed = Feed(db, [states[processor.id] for processor in CHALLENGES if processor.id in states], slack=slack)
        run = cls(db, settings, as_of, full_scan, contract, catalog, states, feed, role)
        run.missing = _take_in(db, role)
        return run

    @classmethod
    def beside(cls, db: Database, settings: Settings, surroundings: Surroundings, as_of: str) -> Run:
        """The same for a helper, who follows no source."""
        contract, role = surroundings.contract, surroundings.role.by(settings)
        return cls(
            db, settings, as_of, False, contract, _read_catalog(db, contract), load_states(db), Feed(db, ()), role
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
                self.remember(processor, time.monotonic() - began)
            self.is_first = False
        except Exception as error:
            if is_operator_intervention(error):
                raise
            description = described(self.db, error)
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
        """Whether the processor's first build has slices left, or there are open ones."""
        work = self.works.get(processor.id)
        return work is not None and work.is_unfinished

    def is_waiting(self, processor: Processor) -> bool:
        """Whether nothing could be done for the processor until others have written what they have in hands."""
        work = self.works.get(processor.id)
        return work is not None and work.is_waiting

    def _absorbing(self, processor: Processor) -> Processor:
        """The same, where nodes derive it."""
        from audius_challenges.engine.absorbing import Absorbing  # noqa: PLC0415 - only where there are shares

        assert self.role.plan is not None  # noqa: S101 - there is no primary of shares without one
        return Absorbing(processor, self.role.plan)

    def _count_past(self, processor: Processor) -> None:
        """A step of counting what was completed before; a failure of the challenge does not take it back."""
        backfill = self.backfills.setdefault(processor.id, Backfill(processor.id))
        # What is counted must not move while helpers go by it.
        is_still = processor.id in self.open_slices.may_be_left
        if not backfill.is_done and not is_still and self.contract.has(COUNTS):
            with self.db.plpy.subtransaction():
                self.backfills[processor.id] = count_past(self.db, backfill)

    def remember(self, processor: Processor, duration: float) -> None:
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
                counts=work.untold(),
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
        if work.is_waiting:
            remember_turn(self.db, processor.id)
        else:
            save_state(self.db, work.state, work.as_of)
        self.works[processor.id] = work
        outcome.users_examined = work.users_examined
        outcome.rows_inserted = work.written.inserted
        outcome.rows_updated = work.written.updated
        outcome.rows_completed = work.written.completed

    def _state(self, processor: Processor) -> State:
        return self.states.setdefault(processor.id, State(processor.id))

    def work(self, processor: Processor, challenge: Challenge) -> Work:
        """What the processor is handed."""
        return Work(
            db=self.db,
            feed=self.feed,
            slices=self.slices,
            open_slices=self.open_slices,
            challenge=challenge,
            state=self._state(processor),
            backfill=self.backfills.get(processor.id) or Backfill(processor.id),
            settings=self.settings,
            as_of=self.as_of,
            full_scan=self.full_scan,
            without_past=processor.without_past,
            is_node=self.role.is_node,
        )


def _read_catalog(db: Database, contract: Contract) -> dict[str, Challenge] | ChallengeError:
    try:
        contract.require(CATALOG)
        catalog = load_catalog(db)
        require_room_for_block_numbers(db, contract)
    except ChallengeError as error:
        return error
    return catalog


def described(db: Database, error: Exception) -> str:
    """What failed a challenge, for people; with what to grant, if that is what was missing."""
    description = describe(error)
    if sqlstate_of(error) == INSUFFICIENT_PRIVILEGE and "HINT:" not in description:
        role = db.row("SELECT quote_ident(current_user) AS name, quote_literal(current_user) AS text")
        if db.value(_HAS_ROW_SECURITY, schema=db.schema):
            hint = f"ALTER ROLE {role['name']} BYPASSRLS; a run has to see all rows, whatever policies there are."
        else:
            hint = (
                f"SELECT audius_challenges.grant_run({role['text']}); grants what challenges need;"
                " the application's triggers may need more."
            )
        description += f" HINT: {hint}"
    return description


def why_not(db: Database, settings: Settings, role: Role) -> list[str]:
    """Why no run may work here at the moment: on a node of shares alone there may be reasons.

    :param role: what this server is now, whatever is set
    """
    role = role.by(settings)
    if not role.is_node:
        return []
    from audius_challenges.operation import share_guard  # noqa: PLC0415 - only where there are shares

    return share_guard.why_not(db, settings, role.plan)


def _take_in(db: Database, role: Role) -> dict[str, Problem]:
    """On the primary: what nodes have sent, as far as nothing is wrong; what is, by share."""
    if role.plan is None or role.is_node:
        return {}
    from audius_challenges.engine.intake import take_in  # noqa: PLC0415 - only where there are shares

    return take_in(db, role.plan)


def disabled(db: Database, processors: Iterable[Processor]) -> list[Outcome]:
    return idle(db, processors, DISABLED)


def idle(db: Database, processors: Iterable[Processor], reason: str) -> list[Outcome]:
    """What comes of a run that does nothing."""
    db.plpy.notice(f"{reason}: nothing was done")
    return [Outcome(processor.id, "inactive", error=reason) for processor in processors]
