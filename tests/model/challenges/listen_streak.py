"""e, listen streak: days in a row, from plays in the order they were played."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.model.rows import ListenStreak as State
from tests.model.rows import UserChallenge
from tests.model.rules import Model, Rule, Terms, completed

LISTENS_TOGETHER = timedelta(hours=16)
"""A listen that follows the last one sooner than this is the same day's."""
STREAK_BREAKS = timedelta(hours=48)
"""A listen that follows the last one by this or more starts over."""
CLOCKS_DIFFER = timedelta(minutes=5)
"""A listen that claims to be from later than this is not there yet."""
STREAK_TARGET = 7
STREAK_AMOUNT = 7
EXTRA_DAY_AMOUNT = 1


def streak_specifier(user_id: int, listened_at: datetime) -> str:
    """Hex user id and the hour of the listen, UTC, as `YYYYMMDDHH`."""
    return f"{user_id:x}{listened_at:%Y%m%d%H}"


class ListenStreak(Rule):
    """What has been counted of a user is in his state; what never counts lies in a pause. No play is remembered."""

    IDS = ("e",)

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.states = model.challenge_listen_streak
        self.has_begun = False
        """Whether a run has ever found the challenge active."""
        self.pauses: list[tuple[datetime, datetime]] = []
        """From the first run that found it inactive to the first that found it active again, by the real clock."""
        self.paused_at: datetime | None = None

    def rest(self, now: datetime) -> None:
        if self.has_begun and self.paused_at is None:
            self.paused_at = _naive(now)

    def start_from_now(self, now: datetime) -> None:
        """A pause from the beginning of time until now."""
        self.pauses.append((datetime.min, _naive(now)))  # noqa: DTZ901 - a column without a zone

    def reconcile(self, terms: Terms) -> None:
        self.has_begun = True
        if self.paused_at:
            self.pauses.append((self.paused_at, _naive(terms.now)))
            self.paused_at = None
        for play in sorted(self.sources.plays, key=lambda play: play.created_at):
            if play.created_at > _naive(terms.as_of) + CLOCKS_DIFFER or self.in_a_pause(play.created_at):
                continue
            if play.user_id is not None and self.model.person(play.user_id):
                self.listen(play.user_id, play.created_at, terms.block)

    def in_a_pause(self, at: datetime) -> bool:
        return any(began_at <= at <= ended_at for began_at, ended_at in self.pauses)

    def state_of(self, user_id: int) -> State:
        """The user's state; where it is lost or older than his latest, complete row, that stands in."""
        state = self.states.get(user_id)
        row = self.latest_row(user_id)
        is_older = state and state.last_listen_date and row and row.is_complete and row.completed_at
        if state and state.last_listen_date and not (is_older and is_older > state.last_listen_date):
            return state
        if row is None:
            return State(user_id, None, 0)
        if not row.is_complete:
            return State(user_id, row.created_at.replace(tzinfo=None), 1)
        is_seven_days = row.current_step_count == STREAK_TARGET
        return State(user_id, row.completed_at, STREAK_TARGET if is_seven_days else STREAK_TARGET + 1)

    def listen(self, user_id: int, at: datetime, block: int) -> None:
        """A listen of an eligible user, at a naive UTC time. What is not newer than his state changes nothing."""
        before = self.state_of(user_id)
        is_unbroken = False
        if before.last_listen_date:
            gap = at - before.last_listen_date
            if gap < LISTENS_TOGETHER:
                return
            is_unbroken = gap < STREAK_BREAKS
        running = self.running_row(user_id, at, before.listen_streak) if is_unbroken else None
        streak = before.listen_streak + 1 if is_unbroken else 1
        self.states[user_id] = State(user_id, at, streak)

        if running is None and streak > STREAK_TARGET:
            extra = _new_row(user_id, at, 1, EXTRA_DAY_AMOUNT)
            self.write(completed(extra, at, block))
            return
        row = running or _new_row(user_id, at, streak, STREAK_AMOUNT)
        row = replace(row, current_step_count=min(streak, STREAK_TARGET), amount=STREAK_AMOUNT)
        self.write(row if streak < STREAK_TARGET else completed(row, at, block))

    def running_row(self, user_id: int, at: datetime, counted: int) -> UserChallenge | None:
        """The row that is continued: the latest one, if it is incomplete and no older than that many listens can be."""
        latest = self.latest_row(user_id)
        oldest_start = at.replace(tzinfo=UTC) - counted * STREAK_BREAKS
        return latest if latest and not latest.is_complete and latest.created_at >= oldest_start else None

    def latest_row(self, user_id: int) -> UserChallenge | None:
        rows = [row for row in self.model.user_challenges.values() if (row.challenge_id, row.user_id) == ("e", user_id)]
        return max(rows, key=lambda row: (row.created_at, row.specifier), default=None)

    def write(self, row: UserChallenge) -> None:
        """Opens the row or continues the incomplete one with its specifier; a complete one is left."""
        key = ("e", row.specifier)
        there = self.model.user_challenges.get(key)
        if there is None:
            self.model.user_challenges[key] = row
        elif not there.is_complete:
            self.model.user_challenges[key] = replace(row, created_at=there.created_at)


def _naive(at: datetime) -> datetime:
    """A time as columns without a zone have it."""
    return at.astimezone(UTC).replace(tzinfo=None)


def _new_row(user_id: int, at: datetime, steps: int, amount: int) -> UserChallenge:
    return UserChallenge(
        challenge_id="e",
        specifier=streak_specifier(user_id, at),
        user_id=user_id,
        is_complete=False,
        current_step_count=steps,
        completed_blocknumber=None,
        amount=amount,
        created_at=at.replace(tzinfo=UTC),
        completed_at=None,
    )
