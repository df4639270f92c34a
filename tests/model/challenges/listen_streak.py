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
STREAK_TARGET = 7
STREAK_AMOUNT = 7
EXTRA_DAY_AMOUNT = 1


def streak_specifier(user_id: int, listened_at: datetime) -> str:
    """Hex user id and the hour of the listen, UTC, as `YYYYMMDDHH`."""
    return f"{user_id:x}{listened_at:%Y%m%d%H}"


class ListenStreak(Rule):
    IDS = ("e",)

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.states = model.challenge_listen_streak
        self.seen: set[int] | None = None
        """Ids of the plays that no later run counts; None until a run has found the challenge active."""

    def rest(self) -> None:
        if self.seen is not None:
            self.seen |= {play.id for play in self.sources.plays}

    def reconcile(self, terms: Terms) -> None:
        seen = self.seen or set()
        fresh = [play for play in self.sources.plays if play.id not in seen]
        for play in sorted(fresh, key=lambda play: (play.created_at, play.id)):
            if play.user_id is not None and self.model.person(play.user_id):
                self.listen(play.user_id, play.created_at, terms.block)
        self.seen = seen | {play.id for play in fresh}

    def listen(self, user_id: int, at: datetime, block: int) -> None:
        """One listen of an eligible user, at a naive UTC time."""
        streak = 1
        state = self.states.get(user_id)
        if state and state.last_listen_date:
            gap = at - state.last_listen_date
            if gap < LISTENS_TOGETHER:
                return
            if gap < STREAK_BREAKS:
                streak = state.listen_streak + 1
        self.states[user_id] = State(user_id, at, streak)

        running = self.running_row(user_id, at, streak) if streak > 1 else None
        if running is None and streak > STREAK_TARGET:
            extra = _new_row(user_id, at, 1, EXTRA_DAY_AMOUNT)
            self.write(completed(extra, at, block))
            return
        row = running or _new_row(user_id, at, streak, STREAK_AMOUNT)
        row = replace(row, current_step_count=min(streak, STREAK_TARGET), amount=STREAK_AMOUNT)
        self.write(row if streak < STREAK_TARGET else completed(row, at, block))

    def running_row(self, user_id: int, at: datetime, streak: int) -> UserChallenge | None:
        """The row that is continued: the latest one, if it is incomplete and no older than the streak can be."""
        latest = self.latest_row(user_id)
        oldest_start = at.replace(tzinfo=UTC) - streak * STREAK_BREAKS
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
            self.model.user_challenges[key] = replace(row, user_id=there.user_id, created_at=there.created_at)


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
