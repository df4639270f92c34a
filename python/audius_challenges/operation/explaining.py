"""Why a user has a reward or has none: the rows of `explain_challenge()`.

What the next run would write is asked of the challenges, which say it by the SQL of runs. Here it is put beside what is
there: the account, the catalog, rows, payments, who is set aside, and what fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from audius_challenges.annotations import Any
from audius_challenges.catalog import CATALOG, Challenge, absent_challenge, load_catalog, require_known
from audius_challenges.challenges import CHALLENGES
from audius_challenges.contract import Contract, read_contract
from audius_challenges.database import Database, Row
from audius_challenges.engine.explanation import Answer, Asked, Prospect, Said
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Processor
from audius_challenges.engine.set_aside import EVERYTHING, may_be_one_users
from audius_challenges.engine.state import Phase, State, load_states
from audius_challenges.engine.users import USER_ID, account
from audius_challenges.engine.writing import WRITES
from audius_challenges.errors import (
    INSUFFICIENT_PRIVILEGE,
    ChallengeError,
    describe,
    is_operator_intervention,
    null_argument,
    sqlstate_of,
)
from audius_challenges.operation.stillness import find_stillness
from audius_challenges.settings import MAX_INTEGER, PREFIX, is_off, read_settings, stored_settings
from audius_challenges.sources import columns_read, merged

_ACCOUNT = f"""
    WITH {account()}
    SELECT
        account.is_deactivated,
        account.blocknumber,
        (
            SELECT count(*)
            FROM discovery.users
            WHERE users.user_id = :user_id::bigint
                AND users.is_current
        ) AS current_rows,
        EXISTS (
            SELECT FROM discovery.users
            WHERE users.user_id = :user_id::bigint
        ) AS has_rows
    FROM (SELECT TRUE) AS always
    LEFT JOIN account
        ON TRUE
"""

# || '': a user's rows, by their index.
_ROWS = """
    SELECT
        own.challenge_id::text AS challenge_id,
        own.specifier::text AS specifier,
        coalesce(own.is_complete, FALSE) AS is_complete,
        own.current_step_count AS steps,
        own.amount,
        paid.record IS NOT NULL AS is_paid,
        open.specifier IS NOT NULL AS is_open,
        open.claimable_at,
        open.claimable_at <= now() AS is_claimable,
        CASE
            WHEN isfinite(open.claimable_at)
                THEN to_char(
                    open.claimable_at AT TIME ZONE 'UTC',
                    CASE WHEN open.claimable_at < '0001-01-01 UTC' THEN 'YYYY-MM-DD BC HH24:MI'
                         ELSE 'YYYY-MM-DD HH24:MI' END
                )
        END AS claimable_from
    FROM discovery.user_challenges AS own
    LEFT JOIN audius_challenges.undisbursed(of_user => :user_id::bigint) AS open
        ON own.challenge_id::text = open.challenge_id
        AND own.specifier::text = open.specifier
    LEFT JOIN LATERAL (
        (
            SELECT TRUE AS record
            FROM discovery.challenge_disbursements
            WHERE challenge_disbursements.challenge_id::text = own.challenge_id::text
                AND challenge_disbursements.specifier::text = own.specifier::text
            LIMIT 1
        )
        UNION ALL
        (
            SELECT TRUE
            FROM discovery.sol_reward_disbursements
            WHERE sol_reward_disbursements.challenge_id::text = own.challenge_id::text
                AND sol_reward_disbursements.specifier::text = own.specifier::text
            LIMIT 1
        )
        LIMIT 1
    ) AS paid
        ON TRUE
    WHERE own.user_id = :user_id::bigint
        AND own.challenge_id::text || '' = ANY(:challenge_ids::text[])
    ORDER BY
        own.created_at,
        own.specifier COLLATE "C"
"""

_SET_ASIDE = """
    SELECT
        aside.specifier,
        aside.error
    FROM audius_challenges.set_aside AS aside
    WHERE aside.challenge_id = :challenge_id::text
        AND (
            aside.user_id = :user_id::bigint
            OR (aside.examined_id = ANY(:examined::bigint[]) AND aside.specifier = '')
        )
    ORDER BY
        aside.tried_at,
        aside.specifier COLLATE "C"
"""

_FAILURES = """
    SELECT
        state.challenge_id,
        state.last_error AS error,
        to_char(state.last_error_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS at
    FROM audius_challenges.processor_state AS state
    WHERE state.consecutive_failures > 0
"""

# Without these there is no answer: _ROWS and _ACCOUNT read them, and so does undisbursed().
_NEEDED = merged([CATALOG, WRITES, columns_read(_ROWS, _ACCOUNT, own="user_challenges")])


@dataclass(frozen=True)
class Line:
    """A row of `explain_challenge()`."""

    challenge_id: str
    line: str
    what: str | None = None
    demanded: str | None = None
    has: str | None = None
    holds: bool | None = None
    since: str | None = None
    state: str | None = None
    says: str | None = None
    specifier: str | None = None
    amount: int | None = None
    is_paid: bool | None = None
    claimable_at: str | None = None

    def as_row(self) -> tuple[Any, ...]:
        """The columns as SQL returns them."""
        return tuple(vars(self).values())


@dataclass
class Subject:
    """The user who is asked about, and what is known of him whatever the challenge.

    :ivar account: the row that decides about him
    :ivar rows: his user challenges, by challenge
    """

    id: int
    account: Row
    rows: dict[str, list[Row]]

    @property
    def is_active(self) -> bool:
        """Whether he counts (rule 8)."""
        return self.account["is_deactivated"] is False

    @property
    def said(self) -> Said:
        """What every challenge demands."""
        found = self.account
        if not found["current_rows"]:
            has = "no current row" if found["has_rows"] else "no row"
        else:
            has = "active" if self.is_active else "deactivated"
            if found["current_rows"] > 1:
                has += f" by the row that decides, of block {found['blocknumber']}: {found['current_rows']} are current"
        return Said("account", "a current row in users, not deactivated", has, self.is_active)


@dataclass
class Inquiry:
    """One call of `explain_challenge()`.

    :ivar failing: of the challenges whose last run failed, the error and when that was
    :ivar is_switched_off: whether runs do nothing, by a setting of this session or of the database
    """

    db: Database
    contract: Contract
    catalog: Mapping[str, Challenge]
    states: Mapping[str, State]
    failing: Mapping[str, Row]
    is_switched_off: bool
    subject: Subject
    as_of: str
    completed: set[str] = field(default_factory=set)

    def explain(self, processor: Processor) -> list[Line]:
        """The lines of one challenge."""
        challenge = self.catalog.get(processor.id) or absent_challenge(processor.id)
        answer, failure = self._answer(processor, challenge)
        rewards = list(self._rewards(processor, answer))
        if any(line.state == "next_run" for line in rewards):
            self.completed.add(processor.id)
        state, says = self._verdict(processor, answer, rewards, failure)
        conditions = [self.subject.said, *answer.said]
        return [
            *(Line(processor.id, "condition", **vars(condition)) for condition in conditions),
            *rewards,
            Line(processor.id, "verdict", state=state, says=says),
        ]

    def _answer(self, processor: Processor, challenge: Challenge) -> tuple[Answer, str | None]:
        """What the challenge says; and why its next run would fail, if it would."""
        if processor.id not in self.catalog or not self.subject.account["current_rows"]:
            return Answer(), None
        asked = Asked(self.db, self.contract, challenge, self.as_of, self.subject.id, self.completed)
        try:
            self.contract.require(processor.reads)
            _ = challenge.amount
            with self.db.plpy.subtransaction():
                answer = processor.explain(asked)
        except Exception as error:
            is_of_run = isinstance(error, (ChallengeError, self.db.plpy.SPIError))
            if not is_of_run or is_operator_intervention(error) or sqlstate_of(error) == INSUFFICIENT_PRIVILEGE:
                raise
            if may_be_one_users(self.db, error):
                return Answer(failures={EVERYTHING: describe(error)}), None
            return Answer(), describe(error)
        if not challenge.active or not self.subject.is_active:
            answer.prospects.clear()
            answer.capped.clear()
            answer.failures.clear()
        return answer, None

    def _rewards(self, processor: Processor, answer: Answer) -> Iterator[Line]:
        """A line for each row that there is, or would be, or that something keeps from being."""
        errors = self._errors(processor, answer)
        wanted = {one.specifier: one for one in answer.prospects}
        said: set[str] = set()
        for row in self.subject.rows.get(processor.id, []):
            said.add(row["specifier"])
            if row["is_complete"]:
                yield _complete(processor.id, row)
            else:
                yield _unfinished(processor.id, answer, wanted.get(row["specifier"]), row, errors)
        for one in wanted.values():
            if one.is_to_be_written and one.specifier not in said:
                said.add(one.specifier)
                yield _unfinished(processor.id, answer, one, None, errors)
        yield from _kept_back(processor.id, answer, errors, said)

    def _errors(self, processor: Processor, answer: Answer) -> dict[str, str]:
        """What cannot be written: specifier, or EVERYTHING -> the error."""
        found = self.db.rows(
            _SET_ASIDE,
            challenge_id=processor.id,
            user_id=self.subject.id,
            examined=answer.examined,
        )
        return {**{row["specifier"]: row["error"] for row in found}, **answer.failures}

    def _verdict(
        self, processor: Processor, answer: Answer, rewards: Sequence[Line], failure: str | None
    ) -> tuple[str, str]:
        """The state of the challenge for the user, and a sentence for him: the first that applies."""
        complete = [line for line in rewards if line.state == "complete"]
        if complete and not getattr(processor, "is_deed", True):
            return "complete", f"Complete: {_sum(complete)}. {complete[-1].says}"
        so_far = f" So far: {_sum(complete)}." if complete else ""
        state, says = next(
            (state, says)
            for verdicts in (
                self._of_the_challenge(processor, failure),
                self._of_what_comes(processor, rewards),
                self._of_the_account(processor, answer),
                self._of_what_is_there(processor, answer, rewards),
            )
            for state, says in verdicts
        )
        if state in ("absent", "inactive"):
            return state, f"{says}{so_far}"
        says += so_far
        if self.is_switched_off:
            says += f" At present no run does anything: {PREFIX}enabled is off."
        if state != "failed" and (last := self.failing.get(processor.id)):
            last_run = f"Failed at its last run ({last['at']} UTC); the next run tries again."
            return "failed", f"{last_run} {says} The error: {last['error']}"
        return state, says

    def _of_the_challenge(self, processor: Processor, failure: str | None) -> Iterator[tuple[str, str]]:
        if processor.id not in self.catalog:
            state = self.states.get(processor.id)
            why = "is not in the catalog" if state is None or state.is_asked_for else "waits to be asked for"
            yield "absent", f"The challenge {why}, so nobody gains anything."
        elif not self.catalog[processor.id].active:
            yield "inactive", "The challenge is not active, so nothing moves."
        elif failure:
            yield "failed", f"The challenge fails, and nothing moves until that is mended. The error: {failure}"

    def _of_what_comes(self, processor: Processor, rewards: Sequence[Line]) -> Iterator[tuple[str, str]]:
        if coming := [line for line in rewards if line.state == "next_run"]:
            yield (
                "next_run",
                f"Earned: {_sum(coming)}. The next run that examines the user completes it.{self._when(processor)}",
            )
        for line in rewards:
            if line.state == "set_aside":
                says = (
                    "it cannot be written, and is tried again when the user's rows change and once a round of the sweep"
                )
                yield "set_aside", f"Set aside: {says}. {line.says}"

    def _of_the_account(self, processor: Processor, answer: Answer) -> Iterator[tuple[str, str]]:
        if not self.subject.is_active:
            has = self.subject.said.has
            yield "ineligible", f"Nothing is gained and nothing moves without an active account: {has}."
        elif not answer.takes_part:
            yield "ineligible", f"The account does not qualify.{_lacking(processor, answer.said)}"
        elif answer.waits_for:
            yield "waits", f"Waits: {answer.waits_for}."

    def _of_what_is_there(
        self, processor: Processor, answer: Answer, rewards: Sequence[Line]
    ) -> Iterator[tuple[str, str]]:
        states = {line.state for line in rewards}
        steps = next((line.says for line in reversed(rewards) if line.state == "in_progress"), "")
        lacking = _lacking(processor, answer.said)
        for state, says in (
            ("in_progress", f"In progress: {steps}{lacking}"),
            ("cap_reached", "The limit of rewards is reached."),
            ("complete", "All that was earned has been written."),
            ("paid_before", "Paid before, and never paid again."),
            ("passed_over", "Passed over, for good: it was there before the challenge began here."),
        ):
            if state in states:
                yield state, says
        yield "below_target", f"Not earned.{lacking}"

    def _when(self, processor: Processor) -> str:
        """What keeps the next run from coming, or the user from being examined by it."""
        says = ""
        state = self.states.get(processor.id)
        if isinstance(processor, PerUser) and (state is None or state.phase is not Phase.WATCHING):
            says = " Not yet examined: everybody is being examined for the first time, or again."
            if state and state.sweep_position is not None and processor.key == USER_ID:
                says = f" Not yet examined: {state.phase.value if state.phase else 'the sweep'} has come to user"
                says += f" {state.sweep_position}."
        stillness = None if self.is_switched_off else find_stillness(self.db)
        return f"{says} At present nothing ticks: {stillness.reason}." if stillness else says


def explain(
    db: Database, user_id: int | None, challenge_id: str | None, as_of: str | None = None
) -> list[tuple[Any, ...]]:
    """The rows of `explain_challenge()`.

    :param challenge_id: None: all challenges
    :param as_of: the clock of the run that is told of, a timestamptz as text; None: the present
    :raises ChallengeError: if the user id is null, the challenge id unknown, or a table or a privilege is missing
    """
    if user_id is None:
        raise null_argument("user_id")
    known = [processor.id for processor in CHALLENGES]
    if challenge_id is not None:
        require_known([challenge_id], known)
    try:
        inquiry = _begin(db, user_id, known, as_of)
        asked = _with_those_before(challenge_id)
        lines = [line for processor in asked for line in inquiry.explain(processor)]
    except db.plpy.SPIError as error:
        if sqlstate_of(error) != INSUFFICIENT_PRIVILEGE:
            raise
        role = db.value("SELECT quote_literal(current_user)")
        raise ChallengeError(
            str(error),
            sqlstate=INSUFFICIENT_PRIVILEGE,
            hint=f"SELECT audius_challenges.grant_status({role}); grants what is read."
            " Where there is row-level security, the role has to see all rows.",
        ) from None
    return [line.as_row() for line in lines if challenge_id in (None, line.challenge_id)]


def _begin(db: Database, user_id: int, known: list[str], as_of: str | None) -> Inquiry:
    contract = read_contract(db)
    contract.require(_NEEDED)
    rows: dict[str, list[Row]] = {}
    for row in db.rows(_ROWS, user_id=user_id, challenge_ids=known):
        rows.setdefault(row["challenge_id"], []).append(row)
    return Inquiry(
        db,
        contract,
        load_catalog(db),
        load_states(db),
        {row["challenge_id"]: row for row in db.rows(_FAILURES)},
        _is_switched_off(db),
        Subject(user_id, db.row(_ACCOUNT, user_id=user_id), rows),
        as_of or db.value("SELECT now()::text"),
    )


def _is_switched_off(db: Database) -> bool:
    """Whether runs do nothing here: by the database's setting, which a session may be older than, or by its own."""
    stored = next((one for one in stored_settings(db, f"{PREFIX}enabled") if one.role is None), None)
    if stored and is_off(stored.value):
        return True
    try:
        return not read_settings(db).enabled
    except ChallengeError:  # Which runs complain of.
        return False


def _with_those_before(challenge_id: str | None) -> list[Processor]:
    """The challenge, and those that have to be complete before it, in run order."""
    wanted = {challenge_id}
    for processor in reversed(CHALLENGES):
        if processor.id in wanted:
            wanted.add(getattr(processor, "after", None))
    return [processor for processor in CHALLENGES if challenge_id is None or processor.id in wanted]


def _complete(challenge_id: str, row: Row) -> Line:
    if row["is_paid"]:
        says = "Paid."
    elif not row["is_open"]:
        says = "Not paid; while the challenge or the account is not active, it is not offered for payment."
    elif row["claimable_at"] is None:
        says = "Not paid; when it was completed is not known."
    elif row["claimable_from"] is not None:
        says = f"Not paid; it can be claimed {'since' if row['is_claimable'] else 'from'} {row['claimable_from']} UTC."
    elif row["is_claimable"]:
        says = "Not paid; it can be claimed: its cooldown ended before all time."
    else:
        says = "Not paid; it can never be claimed: its cooldown does not end."
    return Line(
        challenge_id,
        "reward",
        state="complete",
        says=says,
        specifier=row["specifier"],
        amount=row["amount"],
        is_paid=row["is_paid"],
        claimable_at=row["claimable_at"],
    )


def _unfinished(
    challenge_id: str, answer: Answer, one: Prospect | None, row: Row | None, errors: Mapping[str, str]
) -> Line:
    """A row that is not complete, or not there: as the sources want it, if they want it at all."""
    specifier = one.specifier if one else row["specifier"] if row else ""
    amount, steps = (one.amount, one.steps) if one else (row["amount"], row["steps"] or 0) if row else (0, 0)
    error = errors.get(specifier, errors.get(EVERYTHING))
    if error and (one is None or one.is_to_be_written):
        state, says = "set_aside", f"Error: {error}"
    elif one and one.is_complete and one.is_to_be_written:
        state, says = "next_run", "The next run that examines the user completes it."
    else:
        state, says = "in_progress", f"{steps} of {answer.target} steps." if answer.target else "Not complete."
        if one is None:
            says += " As things are, nothing changes it."
    return Line(
        challenge_id,
        "reward",
        state=state,
        says=says,
        specifier=specifier,
        amount=_fitting(amount),
        is_paid=row["is_paid"] if row else False,
    )


def _kept_back(challenge_id: str, answer: Answer, errors: Mapping[str, str], said: set[str]) -> Iterator[Line]:
    """What there is no row of, nor will be, though the sources tell of it.

    :param said: the specifiers of which there is a line already
    """
    for specifier, record in answer.refused.items():
        if specifier not in said:
            yield _refused(challenge_id, specifier, record)
    for one in answer.capped:
        if one.specifier not in said and one.specifier not in answer.refused:
            yield Line(
                challenge_id,
                "reward",
                state="cap_reached",
                says="The limit of rewards is reached.",
                specifier=one.specifier,
                amount=_fitting(one.amount),
            )
    for specifier, error in errors.items():
        if specifier not in said and specifier not in answer.refused and (specifier or not said):
            yield Line(challenge_id, "reward", state="set_aside", says=f"Error: {error}", specifier=specifier or None)


def _refused(challenge_id: str, specifier: str, record: str) -> Line:
    name = record.removeprefix("discovery.")
    if name == "audius_challenges.passed_over":
        state, says = "passed_over", "Passed over by start_from_now(): it is never rewarded."
    else:
        state, says = "paid_before", f"Rewarded before, as {name} tells: it is not rewarded again."
    is_paid = name.endswith("disbursements")
    return Line(challenge_id, "reward", state=state, says=says, specifier=specifier, is_paid=is_paid)


def _lacking(processor: Processor, said: Sequence[Said]) -> str:
    """What does not hold, in a sentence. Of deeds the first is enough: what follows is asked of what there is."""
    lacking = [f"{one.what} ({one.has or 'nothing'}; demanded: {one.demanded})" for one in said if one.holds is False]
    if getattr(processor, "is_deed", True):
        lacking = lacking[:1]
    return f" Missing: {'; '.join(lacking)}." if lacking else ""


def _sum(lines: Sequence[Line]) -> str:
    amount = sum(line.amount or 0 for line in lines)
    return f"{len(lines)} reward{'s' * (len(lines) != 1)}, {amount} $AUDIO"


def _fitting(amount: int) -> int | None:
    return amount if amount <= MAX_INTEGER else None
