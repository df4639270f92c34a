"""What holds for every challenge: who counts, how a row follows the sources and becomes final, what a run reports."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import ClassVar, Literal

from tests.model.rows import (
    Challenge,
    ListenStreak,
    ProfileCompletion,
    Sources,
    TrendingResult,
    User,
    UserChallenge,
)
from tests.sessions import RUN_ORDER

GREATEST_INTEGER = 2147483647

Status = Literal["ok", "inactive", "absent", "failed"]


class ChallengeError(Exception):
    """One challenge cannot be reconciled; the others go on."""


@dataclass(frozen=True)
class Outcome:
    """What a run reports of one challenge; rows are those of user_challenges."""

    challenge_id: str
    status: Status
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_completed: int = 0
    error: tuple[str, ...] = ()
    """Words that the error message of a failed challenge must hold."""


@dataclass(frozen=True)
class Terms:
    """What one challenge's run works with."""

    id: str
    amount: int
    target: int
    """step_count; 1 unless the challenge is numeric."""
    starting_block: int
    as_of: datetime
    now: datetime
    """The real clock, which a run cannot be told."""
    block: int
    """completed_blocknumber of what completes now."""


def specifier_of(user_id: int) -> str:
    """The default specifier: the user id in lower-case hex, without prefix or padding."""
    return f"{user_id:x}"


def completed(row: UserChallenge, at: datetime, block: int) -> UserChallenge:
    """The row as it completes, at an aware or naive UTC time."""
    return replace(row, is_complete=True, completed_at=at.replace(tzinfo=None), completed_blocknumber=block)


MODELS: dict[str, type[Rule]] = {}
"""Challenge → its model."""


class Rule:
    """The model of one challenge. A subclass names the challenges that it is the model of."""

    IDS: ClassVar[tuple[str, ...]]
    HAS_REAL_CLOCK: ClassVar[bool] = False
    """Whether its rows carry the time that it really was, whatever as_of says."""

    def __init_subclass__(cls) -> None:
        for challenge in cls.__dict__.get("IDS", ()):
            assert challenge not in MODELS, f"{challenge} has two models"
            MODELS[challenge] = cls

    def __init__(self, model: Model) -> None:
        self.model = model
        self.sources = model.sources

    def reconcile(self, terms: Terms) -> None:
        """One run that finds the challenge active. Raises ChallengeError before anything is written."""
        raise NotImplementedError

    def rest(self, now: datetime) -> None:
        """One run that finds the challenge absent or inactive, at that time by the real clock."""

    def progress(self, terms: Terms, user_id: int, specifier: str, steps: int) -> None:
        """A row follows the sources up and down until it is complete, and then never again."""
        row = self.model.user_challenges.get((terms.id, specifier))
        shown = max(0, min(steps, terms.target))
        if row is None:
            if steps < 1:
                return
            row = UserChallenge(terms.id, specifier, user_id, False, shown, None, terms.amount, terms.as_of, None)
        elif row.is_complete:
            return
        row = replace(row, current_step_count=shown, amount=terms.amount)
        if steps >= terms.target:
            row = completed(row, terms.as_of, terms.block)
        self.model.user_challenges[terms.id, specifier] = row


class StepsRule(Rule):
    """The model of a challenge with one row a user."""

    def steps(self, person: User, terms: Terms) -> int:
        """How many steps the user has done."""
        raise NotImplementedError

    def reconcile(self, terms: Terms) -> None:
        for person in self.model.people():
            self.progress(terms, person.user_id, specifier_of(person.user_id), self.steps(person, terms))


@dataclass(frozen=True)
class Deed:
    """What is rewarded by itself."""

    user_id: int
    specifier: str
    earlier: tuple[str, ...] = ()
    """The specifiers that it had in earlier formats."""


class DeedsRule(Rule):
    """The model of a challenge that rewards single deeds: at once, once, and to who is active."""

    def deeds(self, terms: Terms) -> Iterable[Deed]:
        """The deeds that are there, whoever has done them."""
        raise NotImplementedError

    def every_deed(self) -> Iterable[str]:
        """The specifiers of all that the rows tell of, whatever they say."""
        raise NotImplementedError

    def start_from_now(self, name: str) -> None:
        """What is there now is never rewarded."""
        rewarded = {specifier for challenge, specifier in self.model.user_challenges if challenge == name}
        self.model.passed_over |= {(name, specifier) for specifier in self.every_deed() if specifier not in rewarded}

    def known(self, name: str) -> set[str]:
        """The specifiers of what was rewarded, paid, or passed over."""
        known = {specifier for challenge, specifier in self.model.user_challenges if challenge == name}
        known |= {row.specifier for row in self.sources.challenge_disbursements if row.challenge_id == name}
        return known | {specifier for challenge, specifier in self.model.passed_over if challenge == name}

    def reconcile(self, terms: Terms) -> None:
        known = self.known(terms.id)
        for deed in self.deeds(terms):
            if self.model.person(deed.user_id) and known.isdisjoint((deed.specifier, *deed.earlier)):
                self.progress(terms, deed.user_id, deed.specifier, steps=1)


class Model:
    """Sources, derived tables, and what each challenge remembers; `reconcile` is one run."""

    def __init__(self) -> None:
        self.sources = Sources()
        self.user_challenges: dict[tuple[str, str], UserChallenge] = {}
        self.challenge_profile_completion: dict[int, ProfileCompletion] = {}
        self.challenge_listen_streak: dict[int, ListenStreak] = {}
        self.trending_results: dict[tuple[int, str, str, date], TrendingResult] = {}
        self.passed_over: set[tuple[str, str]] = set()
        """Challenges and specifiers that are never rewarded."""
        self.rules = {challenge: MODELS[challenge](self) for challenge in RUN_ORDER if challenge in MODELS}

    def reconcile(
        self,
        as_of: datetime,
        challenge_ids: tuple[str, ...] | None = None,
        *,
        now: datetime | None = None,
        dry_run: bool = False,
    ) -> list[Outcome]:
        """One run over the challenges (all by default), in run order. A dry run reports and keeps nothing.

        now: the real clock, as_of by default
        """
        if dry_run:
            return copy.deepcopy(self).reconcile(as_of, challenge_ids, now=now)
        return [
            self._run(challenge, rule, as_of.astimezone(UTC), (now or as_of).astimezone(UTC))
            for challenge, rule in self.rules.items()
            if challenge_ids is None or challenge in challenge_ids
        ]

    def _run(self, name: str, rule: Rule, as_of: datetime, now: datetime) -> Outcome:
        challenge = self.sources.challenges.get(name)
        if challenge is None or not challenge.active:
            rule.rest(now)
            return Outcome(name, "absent" if challenge is None else "inactive")

        before = dict(self.user_challenges)
        try:
            rule.reconcile(self._terms(challenge, as_of, now))
        except ChallengeError as error:
            return Outcome(name, "failed", error=tuple(str(word) for word in error.args))
        written = [row for key, row in self.user_challenges.items() if before.get(key) != row]
        inserted = [row for row in written if (row.challenge_id, row.specifier) not in before]
        return Outcome(
            name,
            "ok",
            rows_inserted=len(inserted),
            rows_updated=len(written) - len(inserted),
            rows_completed=sum(row.is_complete for row in written),
        )

    def _terms(self, challenge: Challenge, as_of: datetime, now: datetime) -> Terms:
        amount = challenge.amount.strip()
        if not re.fullmatch("[0-9]+", amount) or int(amount) > GREATEST_INTEGER:
            raise ChallengeError(challenge.id, challenge.amount)
        target = 1
        if challenge.type == "numeric":
            if challenge.step_count is None or challenge.step_count < 1:
                raise ChallengeError(challenge.id, "step_count")
            target = challenge.step_count
        return Terms(
            id=challenge.id,
            amount=int(amount),
            target=target,
            starting_block=challenge.starting_block or 0,
            as_of=as_of,
            now=now,
            block=self.sources.greatest_block(),
        )

    def person(self, user_id: int | None) -> User | None:
        """The row that decides about a user; None without a current row, or if that row is deactivated."""
        versions = [row for row in self.sources.users if row.user_id == user_id and row.is_current]
        if not versions:
            return None
        decisive = max(versions, key=lambda row: (row.blocknumber or 0, row.txhash))
        return None if decisive.is_deactivated else decisive

    def people(self) -> list[User]:
        """The deciding row of everybody who counts."""
        ids = sorted({row.user_id for row in self.sources.users})
        return [person for user_id in ids if (person := self.person(user_id))]
