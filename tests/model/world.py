"""The model and the database side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.model.challenges.listen_streak import ListenStreak as ListenStreakRule
from tests.model.database import DERIVED, Database, Environment, Run
from tests.model.rows import Block, ListenStreak, MonthlyPlays, Play, User, UserChallenge
from tests.model.rules import MODELS, DeedsRule, Model, Outcome
from tests.model.spaces import UNHEARD, USERS


class World:
    """The model and the database side by side."""

    def __init__(self, database: Database, environment: Environment = "stage", timezone: str = "UTC") -> None:
        self.database = database
        self.model = Model()
        self.sources = self.model.sources
        for row in database.reset(environment, timezone):
            self.sources.challenges.put(row)
        self.last_listen: dict[int | None, datetime] = {}
        self.latest: dict[str, datetime] = {}
        """Challenge -> the latest clock of its runs."""
        self._next_play = 1
        self._uncommitted: list[Play] = []
        assert database.differences(self.sources) == []

    def stamp(self, number: int | None) -> int | None:
        """A block number for a row; makes the block when it is new."""
        if number is not None:
            self.sources.blocks.put(Block(f"hash-{number}", number))
        return number

    def person(self, user_id: int, **columns: Any) -> None:
        """A user that counts, unless the columns say otherwise."""
        self.sources.users.put(User(user_id, **columns))

    def listen(self, user_id: int | None, at: datetime, track_id: int = 1) -> None:
        """A play, which also counts into its month."""
        self.sources.plays.put(Play(self._next_play, user_id, track_id, at))
        self._next_play += 1
        self._count_into_month(track_id, at)

    def _count_into_month(self, track_id: int, at: datetime) -> MonthlyPlays:
        month = date(at.year, at.month, 1)
        there = self.sources.aggregate_monthly_plays.get(track_id, month, "")
        row = MonthlyPlays(track_id, month, there.count + 1 if there else 1)
        self.sources.aggregate_monthly_plays.put(row)
        return row

    def listen_uncommitted(self, user_id: int, times: list[datetime], *, under_a_savepoint: bool) -> None:
        """Plays whose ids are taken now, to be seen when `commit_late_writer` says so."""
        plays: list[Play] = []
        for at in times:
            plays.append(Play(self._next_play, user_id, UNHEARD + self._next_play, at))
            self._next_play += 1
        self.database.write_plays_late(plays, under_a_savepoint=under_a_savepoint)
        self._uncommitted += plays

    def listen_now(self, user_id: int) -> datetime:
        """A play at the present; returns when that was."""
        at = self.now()
        self.listen(user_id, at)
        return at

    def now(self) -> datetime:
        """The real clock, in UTC, as columns without a zone have it."""
        return self.database.now().astimezone(UTC).replace(tzinfo=None)

    def index_plays_again(self) -> None:
        """All plays are cleared, and come again with other ids."""
        plays = list(self.sources.plays)
        self.sources.plays.delete(lambda _: True)
        for play in plays:
            self.listen(play.user_id, play.created_at, play.play_item_id)

    def start_streaks_from_now(self) -> None:
        self.database.start_from_now("e")
        self.streaks.start_from_now(self.database.now())
        self.latest["e"] = self.database.now()

    def pass_over(self, name: str) -> None:
        """The deeds of a challenge that are there are passed over, for good."""
        rule = self.model.rules[name]
        assert isinstance(rule, DeedsRule)
        if self.sources.challenges.get(name):
            self.mirror()
            self.database.start_from_now(name)
            rule.start_from_now(name)
            self.latest[name] = self.database.now()

    @property
    def streaks(self) -> ListenStreakRule:
        """The model of `e`."""
        rule = self.model.rules["e"]
        assert isinstance(rule, ListenStreakRule)
        return rule

    def commit_late_writer(self) -> None:
        self.database.commit_late_writer()
        for play in self._uncommitted:
            self.sources.plays.put(play)
            self.database.mirrored(play)
            self.database.mirrored(self._count_into_month(play.play_item_id, play.created_at))
        self._uncommitted = []

    def mirror(self) -> None:
        self.database.mirror(self.sources)

    def leave_user_challenge(self, row: UserChallenge) -> None:
        """A row of an earlier service, unless its challenge is absent or a complete row is there."""
        there = self.model.user_challenges.get((row.challenge_id, row.specifier))
        if self.sources.challenges.get(row.challenge_id) and not (there and there.is_complete):
            self.model.user_challenges[row.challenge_id, row.specifier] = row
            self.database.write_user_challenge(row)

    def leave_streak(self, row: ListenStreak) -> None:
        """A state of an earlier service."""
        self.model.challenge_listen_streak[row.user_id] = row
        self.database.write_streak(row)

    def lose_user_challenge(self, challenge_id: str, specifier: str) -> None:
        del self.model.user_challenges[challenge_id, specifier]
        self.database.delete_derived("user_challenges", challenge_id=challenge_id, specifier=specifier)

    def lose_streak(self, user_id: int) -> None:
        self.model.challenge_listen_streak.pop(user_id, None)
        self.database.delete_derived("challenge_listen_streak", user_id=user_id)

    def lose_profile(self, user_id: int) -> None:
        self.model.challenge_profile_completion.pop(user_id, None)
        self.database.delete_derived("challenge_profile_completion", user_id=user_id)

    def reconcile(self, run: Run) -> list[Outcome]:
        """A run in both: they must agree; a dry run before it, a second run after it must change nothing.

        A run that goes back in time is refused, and goes on with those that may: weekly trending.
        """
        self.mirror()
        now = self.database.now()
        as_of = run.as_of or now
        # A crowd would take too many slices.
        is_crowd = len({row.user_id for row in self.sources.users}) > 2 * len(USERS)
        run = replace(run, as_of=as_of, in_slices=(run.in_slices or self.database.has_helpers) and not is_crowd)
        asked = [name for name in self.model.rules if run.challenge_ids is None or name in run.challenge_ids]
        weekly = tuple(name for name in asked if MODELS[name].HAS_REAL_CLOCK)
        if back := [name for name in asked if name not in weekly and as_of < self.latest.get(name, as_of)]:
            with self._nothing_written():
                assert self.database.refusal(run) == f"as_of must not be earlier than the last run of {', '.join(back)}"
            run = replace(run, challenge_ids=weekly)
        if run.rehearsed:
            with self._nothing_written(but_rolled_back=True):
                reported = self.database.reconcile(run, dry_run=True)
            if run.repetitions == 1:
                agree(reported, self.model.reconcile(as_of, run.challenge_ids, now=now, dry_run=True))

        writes = self.database.writes()
        reported = self.database.reconcile(run)
        expected = self.model.reconcile(as_of, run.challenge_ids, now=now)
        for outcome in expected:
            if outcome.status != "failed":
                self.latest[outcome.challenge_id] = max(as_of, self.latest.get(outcome.challenge_id, as_of))
        self.take_over_the_clock(now)
        self.assert_equal()
        agree(reported, expected)
        needed = sum(outcome.rows_inserted + outcome.rows_updated for outcome in expected)
        assert self.database.writes() - writes == needed

        with self._nothing_written():
            again = self.database.reconcile(run)
        agree(again, self.model.reconcile(as_of, run.challenge_ids, now=now))
        assert all(outcome.rows_inserted == outcome.rows_updated == 0 for outcome in again)
        return expected

    @contextmanager
    def _nothing_written(self, *, but_rolled_back: bool = False) -> Iterator[None]:
        """The derived rows stay the same versions, not even locked; a rolled back update looks like a lock."""
        versions, writes = self.database.tuple_versions(locks=not but_rolled_back), self.database.writes()
        yield
        assert self.database.tuple_versions(locks=not but_rolled_back) == versions
        assert self.database.writes() == writes

    def take_over_the_clock(self, now: datetime) -> None:
        """Rows of this run that carry the real clock's time carry the database's, a moment after the model's."""
        found = {(row.challenge_id, row.specifier): row for row in self.database.derived()["user_challenges"]}
        for key, row in self.model.user_challenges.items():
            if MODELS[row.challenge_id].HAS_REAL_CLOCK and row.created_at == now and (there := found.get(key)):
                assert now <= there.created_at < now + timedelta(minutes=1)
                assert there.completed_at == there.created_at.replace(tzinfo=None)
                self.model.user_challenges[key] = replace(
                    row, created_at=there.created_at, completed_at=there.completed_at
                )

    def assert_equal(self) -> None:
        """The database's derived tables hold the model's rows, and no others."""
        derived = self.database.derived()
        for table in DERIVED:
            expected = set(getattr(self.model, table).values())
            in_database = sorted(str(row) for row in derived[table] - expected)
            in_model = sorted(str(row) for row in expected - derived[table])
            assert in_database == in_model, table


def agree(reported: list[Outcome], expected: list[Outcome]) -> None:
    """What a run reports is what the model reports; an error holds the words that it must."""
    compared = [outcome for outcome in reported if outcome.challenge_id in MODELS]
    errors = {outcome.challenge_id: outcome.error for outcome in compared if outcome.error}
    assert [replace(outcome, error=()) for outcome in compared] == [
        replace(outcome, error=()) for outcome in expected
    ], errors
    for outcome in expected:
        if outcome.status == "failed":
            (message,) = errors[outcome.challenge_id]
            assert [word for word in outcome.error if word not in message] == [], message
