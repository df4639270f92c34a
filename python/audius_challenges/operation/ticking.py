"""A tick: every challenge in a transaction of its own, within the time budget."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from audius_challenges.challenges import CHALLENGES
from audius_challenges.database import Database
from audius_challenges.engine.processor import Processor
from audius_challenges.engine.shares import RESEND, Problem, Role, how_to_mend, read_role
from audius_challenges.errors import EXTERNAL_ROUTINE_EXCEPTION, ChallengeError, is_operator_intervention
from audius_challenges.operation import last_tick, transaction
from audius_challenges.operation.run import DISABLED, Run, disabled, why_not
from audius_challenges.operation.transaction import LOCK, Surroundings
from audius_challenges.settings import Settings, warn_of

# Seconds between two looks of a tick at what is in other hands, if all that is left to do waits for these.
_PAUSE = 0.2

NOTHING: Mapping[str, Problem] = MappingProxyType({})


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
    :ivar has_helpers: whether there are jobs of helpers
    :ivar has_called: whether this tick has seen to it that there are
    """

    db: Database
    began: float = field(default_factory=time.monotonic)
    has_begun: bool = False
    has_helpers: bool = False
    has_called: bool = False
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
                disabled(db, CHALLENGES)
                last_tick.does_nothing(db, DISABLED)
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
        self.has_helpers = last_tick.begin(db, processors)
        self.has_begun = True
        transaction.set_search_path(db)
        by_index = transaction.fills_empty_tables(db)
        transaction.prepare_own(db, settings, by_index=by_index)
        surroundings = Surroundings.read(db)
        if obstacle := surroundings.why_restoring(db):
            return last_tick.is_restoring(db, *obstacle)
        if reasons := why_not(db, settings, surroundings.role):
            _stopped(db, surroundings.role, reasons)
            return None
        run = Run.begin(db, settings, surroundings, db.value("SELECT now()::text"))
        failures = self._take_turns(run, processors, by_index=by_index)
        return failed(failures, run.missing) if failures or run.missing else None

    def _take_turns(self, run: Run, processors: Sequence[Processor], *, by_index: bool) -> dict[str, str]:
        """Each of the challenges once; then round after round those that have more to do, while there is time.

        :returns: errors of those that failed
        """
        db, settings, failures = self.db, run.settings, dict[str, str]()
        queue = deque(last_tick.in_turn(processors, run.states))
        waiting = 0
        while queue:
            self.under_way = processor = queue.popleft()
            outcome = run.process(processor)
            if outcome.status == "failed" and outcome.error:
                failures[processor.id] = outcome.error
            elif run.is_unfinished(processor):
                queue.append(processor)
            waiting = waiting + 1 if run.is_waiting(processor) else 0
            if self.turns + 1 >= len(processors) and (time.monotonic() - self.began) * 1000 >= settings.time_budget:
                queue.clear()
            if not queue:
                if run.role.is_hub:
                    _beat(db, run.role)
                last_tick.end(db)
            db.plpy.commit()
            self.turns += 1
            if not queue and run.role.is_node:
                self._send_beat(run, failures)
            self._call_helpers(run, is_over=not queue)
            if queue and not self._goes_on(run, is_waiting=waiting >= len(queue), by_index=by_index):
                break
        return failures

    def _goes_on(self, run: Run, *, is_waiting: bool, by_index: bool) -> bool:
        """Begin the next turn's transaction; not where a node of shares may not go on.

        :param is_waiting: whether all that is left waits for others
        """
        db = self.db
        if is_waiting:
            transaction.sleep(db, _PAUSE)
        transaction.set_search_path(db)
        transaction.prepare_own(db, run.settings, by_index=by_index)
        if run.role.is_node and (reasons := why_not(db, run.settings, role := read_role(db, run.settings))):
            _stopped(db, role, reasons)
            return False
        return True

    def _send_beat(self, run: Run, failures: dict[str, str]) -> None:
        """Of a node, in a transaction of its own: a helper that is sending counts next, in a row that the turn has."""
        transaction.set_search_path(self.db)
        _beat(self.db, run.role, _says(list(failures)))
        self.db.plpy.commit()

    def _call_helpers(self, run: Run, *, is_over: bool) -> None:
        """Schedule helpers once there are open slices, and remove their jobs at the end of the tick if none are left.

        Where there were neither slices nor jobs when the tick began, it need not ask.
        """
        db, workers, left = self.db, run.settings.workers, run.open_slices.may_be_left
        must_call = bool(left) and workers > 1 and not self.has_called
        if not must_call and not (is_over and self.has_helpers):
            return
        transaction.set_search_path(db)
        is_needed = workers > 1 and run.open_slices.are_any_left()
        if must_call and is_needed:
            self.has_called = True
            self._schedule(workers - 1)
        elif not is_needed and is_over and self.has_helpers:
            self._schedule(0)
        db.plpy.commit()

    def _schedule(self, helpers: int) -> None:
        """Have so many jobs of helpers, or say who else can help."""
        from audius_challenges.operation import scheduling  # noqa: PLC0415 - seldom needed

        db = self.db
        try:
            with db.plpy.subtransaction():
                scheduling.call_helpers(db, helpers)
                last_tick.remember_helpers(db, has_helpers=helpers > 0)
            self.has_helpers = helpers > 0
        except Exception as error:
            if is_operator_intervention(error):
                raise
            reason = error.message if isinstance(error, ChallengeError) else str(error)
            db.plpy.warning(
                f"the jobs of helpers could not be {'scheduled' if helpers else 'removed'}: {reason}",
                hint=f"Without them the tick does all the work. In up to {helpers} other sessions:"
                " CALL audius_challenges.help();"
                if helpers
                else "SELECT * FROM schedule_challenges(); replaces all jobs.",
            )


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


def failed(failures: dict[str, str], missing: Mapping[str, Problem] = NOTHING) -> ChallengeError:
    """The error in which a tick ends, or a helper, after all challenges have run.

    :param failures: of challenges
    :param missing: what is wrong with what nodes have sent, by share
    """
    failing = [processor.id for processor in CHALLENGES if processor.id in failures]
    messages, details, hints = [], [f"{challenge}: {failures[challenge]}" for challenge in failing], []
    if failing:
        messages.append(f"{len(failing)} of {len(CHALLENGES)} challenges failed: {', '.join(failing)}")
        hints.append("The other challenges were committed. See SELECT * FROM challenge_status;")
    if missing:
        messages += [problem.text for problem in missing.values()]
        if any(problem.mended_by == RESEND for problem in missing.values()):
            details.append("What came before it was written, what has come after it waits.")
        if any(problem.mended_by != RESEND for problem in missing.values()):
            details.append(
                "What came before it was written. What has come after it is dropped: another plan derives it again."
            )
        hints += [how_to_mend(share, problem.mended_by) for share, problem in missing.items()]
    return ChallengeError(
        "; ".join(messages),
        sqlstate=EXTERNAL_ROUTINE_EXCEPTION,
        detail="\n".join(details),
        hint=" ".join(hints),
    )
