"""The rewards, from their specification, in plain Python: what the derived tables hold after each run.

No SQL and no change detection: a run looks at every row there is. Times are UTC; `timestamp` columns are
naive datetimes, `timestamptz` columns aware ones, as psycopg returns them.

    model = Model()
    model.sources.users.put(User(255))
    model.sources.tracks.put(Track(1, owner_id=255, blocknumber=25346436))
    model.reconcile(datetime(2025, 11, 5, tzinfo=UTC))
    model.user_challenges["u", "ff"].current_step_count  # 1
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, TypeVar

RUN_ORDER = ("u", "fp", "p", "v", "e", "p1", "p2", "p3", "tt", "tut", "tp")

GREATEST_INTEGER = 2147483647
FRIDAY = 4  # date.weekday()

LISTENS_TOGETHER = timedelta(hours=16)
"""A listen that follows the last one sooner than this is the same day's."""
STREAK_BREAKS = timedelta(hours=48)
"""A listen that follows the last one by this or more starts over."""
STREAK_TARGET = 7
STREAK_AMOUNT = 7
EXTRA_DAY_AMOUNT = 1

FOLLOWS_NEEDED = 5
PLAYS_COUNT_FROM = date(2025, 1, 1)
MILESTONES = {"p1": "250", "p2": "1000", "p3": "10000"}
PREVIOUS_MILESTONE = {"p2": "p1", "p3": "p2"}

TRENDING_TYPES = {"tt": "TRACKS", "tut": "UNDERGROUND_TRACKS", "tp": "PLAYLISTS"}
TRENDING_VERSION = "pnagD"
TRENDING_RANGE = "week"
WINNERS = 10
TOP_TRACKS = 20
"""Tracks at the top of TRACKS, which are not underground."""
UNDERGROUND_BELOW = 1500
"""Followers, and users followed, from which an owner is not underground."""


class ChallengeError(Exception):
    """One challenge cannot be reconciled; the others go on."""


#
# Source rows: the fields are columns, with defaults for a row that counts.
#


@dataclass(frozen=True)
class Row:
    """A row of a source table or of the catalog."""

    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]

    @property
    def key(self) -> tuple[Hashable, ...]:
        """The values of the primary key."""
        return tuple(getattr(self, name) for name in self.KEY)

    def values(self) -> dict[str, Any]:
        """Column names and values, in the order of the fields."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


@dataclass(frozen=True)
class Block(Row):
    TABLE = "blocks"
    KEY = ("blockhash",)

    blockhash: str
    number: int | None


@dataclass(frozen=True)
class User(Row):
    TABLE = "users"
    KEY = ("user_id", "txhash")

    user_id: int
    txhash: str = "0xa"
    is_current: bool = True
    handle_lc: str | None = "handle"
    name: str | None = None
    bio: str | None = None
    profile_picture: str | None = None
    profile_picture_sizes: str | None = None
    cover_photo: str | None = None
    cover_photo_sizes: str | None = None
    is_verified: bool = False
    is_deactivated: bool = False
    blocknumber: int | None = None


@dataclass(frozen=True)
class Follow(Row):
    TABLE = "follows"
    KEY = ("follower_user_id", "followee_user_id", "txhash")

    follower_user_id: int
    followee_user_id: int
    txhash: str = "0xa"
    is_current: bool = True
    is_delete: bool = False
    blocknumber: int | None = None


@dataclass(frozen=True)
class Save(Row):
    TABLE = "saves"
    KEY = ("user_id", "save_item_id", "save_type", "txhash")

    user_id: int
    save_item_id: int
    save_type: str = "track"
    txhash: str = "0xa"
    is_current: bool = True
    is_delete: bool = False
    blocknumber: int | None = None


@dataclass(frozen=True)
class Repost(Row):
    TABLE = "reposts"
    KEY = ("user_id", "repost_item_id", "repost_type", "txhash")

    user_id: int
    repost_item_id: int
    repost_type: str = "track"
    txhash: str = "0xa"
    is_current: bool = True
    is_delete: bool = False
    blocknumber: int | None = None


@dataclass(frozen=True)
class Track(Row):
    TABLE = "tracks"
    KEY = ("track_id", "txhash")

    track_id: int
    owner_id: int
    txhash: str = "0xa"
    is_current: bool = True
    is_delete: bool = False
    is_unlisted: bool = False
    is_available: bool = True
    stem_of: str | None = None
    """JSON text; the JSON `null` is a value, only None is SQL's NULL."""
    blocknumber: int | None = None


@dataclass(frozen=True)
class Playlist(Row):
    TABLE = "playlists"
    KEY = ("playlist_id", "txhash")

    playlist_id: int
    playlist_owner_id: int
    txhash: str = "0xa"
    is_current: bool = True
    is_delete: bool = False
    is_album: bool = False
    is_private: bool = False
    blocknumber: int | None = None


@dataclass(frozen=True)
class Play(Row):
    TABLE = "plays"
    KEY = ("id",)

    id: int
    user_id: int | None
    play_item_id: int
    created_at: datetime


@dataclass(frozen=True)
class MonthlyPlays(Row):
    TABLE = "aggregate_monthly_plays"
    KEY = ("play_item_id", "timestamp", "country")

    play_item_id: int
    timestamp: date
    count: int
    country: str = ""


@dataclass(frozen=True)
class UserCounters(Row):
    TABLE = "aggregate_user"
    KEY = ("user_id",)

    user_id: int
    follower_count: int | None = 0
    following_count: int | None = 0


@dataclass(frozen=True)
class TrackScore(Row):
    TABLE = "track_trending_scores"
    KEY = ("track_id", "type", "version", "time_range")

    track_id: int
    score: float
    type: str = "TRACKS"
    version: str = TRENDING_VERSION
    time_range: str = TRENDING_RANGE


@dataclass(frozen=True)
class PlaylistScore(Row):
    TABLE = "playlist_trending_scores"
    KEY = ("playlist_id", "type", "version", "time_range")

    playlist_id: int
    score: float
    type: str = "PLAYLISTS"
    version: str = TRENDING_VERSION
    time_range: str = TRENDING_RANGE


@dataclass(frozen=True)
class Challenge(Row):
    TABLE = "challenges"
    KEY = ("id",)

    id: str
    type: Literal["boolean", "numeric", "aggregate", "trending"]
    amount: str
    active: bool
    step_count: int | None
    starting_block: int | None
    weekly_pool: int | None
    cooldown_days: int | None


R = TypeVar("R", bound=Row)


class Table(Generic[R]):
    """Rows by primary key."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Hashable, ...], R] = {}

    def __iter__(self) -> Iterator[R]:
        return iter(list(self.rows.values()))

    def __len__(self) -> int:
        return len(self.rows)

    def put(self, row: R) -> None:
        """Inserts the row, or updates the one with its key."""
        self.rows[row.key] = row

    def get(self, *key: Hashable) -> R | None:
        """The row with that primary key."""
        return self.rows.get(key)

    def delete(self, condition: Callable[[R], bool]) -> None:
        """Deletes the rows that the condition holds for."""
        self.rows = {key: row for key, row in self.rows.items() if not condition(row)}

    def update(self, condition: Callable[[R], bool], **changes: Any) -> None:
        """Updates columns in place, in the rows that the condition holds for."""
        for row in self:
            if condition(row):
                self.put(replace(row, **changes))


@dataclass
class Sources:
    """The source tables and the catalog."""

    blocks: Table[Block] = field(default_factory=Table)
    users: Table[User] = field(default_factory=Table)
    follows: Table[Follow] = field(default_factory=Table)
    saves: Table[Save] = field(default_factory=Table)
    reposts: Table[Repost] = field(default_factory=Table)
    tracks: Table[Track] = field(default_factory=Table)
    playlists: Table[Playlist] = field(default_factory=Table)
    plays: Table[Play] = field(default_factory=Table)
    aggregate_monthly_plays: Table[MonthlyPlays] = field(default_factory=Table)
    aggregate_user: Table[UserCounters] = field(default_factory=Table)
    track_trending_scores: Table[TrackScore] = field(default_factory=Table)
    playlist_trending_scores: Table[PlaylistScore] = field(default_factory=Table)
    challenges: Table[Challenge] = field(default_factory=Table)

    def revert(self, number: int) -> None:
        """Deletes a block, and with it every row that is stamped with its number."""
        self.blocks.delete(lambda block: block.number == number)
        self.users.delete(lambda row: row.blocknumber == number)
        self.follows.delete(lambda row: row.blocknumber == number)
        self.saves.delete(lambda row: row.blocknumber == number)
        self.reposts.delete(lambda row: row.blocknumber == number)
        self.tracks.delete(lambda row: row.blocknumber == number)
        self.playlists.delete(lambda row: row.blocknumber == number)

    def greatest_block(self) -> int:
        """The greatest of `blocks.number` and the block numbers in the source tables; 0 if there are none."""
        numbers: list[int | None] = [0, *(block.number for block in self.blocks)]
        numbers += [row.blocknumber for row in self.users]
        numbers += [row.blocknumber for row in self.follows]
        numbers += [row.blocknumber for row in self.saves]
        numbers += [row.blocknumber for row in self.reposts]
        numbers += [row.blocknumber for row in self.tracks]
        numbers += [row.blocknumber for row in self.playlists]
        return max(number for number in numbers if number is not None)


#
# Derived rows.
#


@dataclass(frozen=True)
class UserChallenge:
    """One user's progress on one challenge."""

    challenge_id: str
    specifier: str
    user_id: int
    is_complete: bool
    current_step_count: int | None
    completed_blocknumber: int | None
    amount: int
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True)
class ProfileCompletion:
    """The seven steps of a user's profile."""

    user_id: int
    profile_description: bool
    profile_name: bool
    profile_picture: bool
    profile_cover_photo: bool
    follows: bool
    favorites: bool
    reposts: bool

    def steps(self) -> int:
        """How many of the seven are done."""
        done = (
            self.profile_description,
            self.profile_name,
            self.profile_picture,
            self.profile_cover_photo,
            self.follows,
            self.favorites,
            self.reposts,
        )
        return sum(done)


@dataclass(frozen=True)
class ListenStreak:
    """The state that carries a user's streak; the date is the last counted listen's."""

    user_id: int
    last_listen_date: datetime | None
    listen_streak: int


@dataclass(frozen=True)
class TrendingResult:
    """One winner of a week."""

    user_id: int
    id: str
    rank: int
    type: str
    version: str
    week: date


Status = Literal["ok", "inactive", "absent", "failed"]


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
class _Terms:
    """What one challenge's run works with."""

    id: str
    amount: int
    target: int
    """step_count; 1 for a boolean challenge."""
    starting_block: int
    as_of: datetime
    block: int
    """completed_blocknumber of what completes now."""


def specifier_of(user_id: int) -> str:
    """The default specifier: the user id in lower-case hex, without prefix or padding."""
    return f"{user_id:x}"


def streak_specifier(user_id: int, listened_at: datetime) -> str:
    """Hex user id and the hour of the listen, UTC, as `YYYYMMDDHH`."""
    return f"{user_id:x}{listened_at:%Y%m%d%H}"


class Model:
    """Sources, derived tables, and what is remembered of plays; `reconcile` is one run."""

    def __init__(self) -> None:
        self.sources = Sources()
        self.user_challenges: dict[tuple[str, str], UserChallenge] = {}
        self.challenge_profile_completion: dict[int, ProfileCompletion] = {}
        self.challenge_listen_streak: dict[int, ListenStreak] = {}
        self.trending_results: dict[tuple[int, str, str, date], TrendingResult] = {}
        self.seen_plays: set[int] | None = None
        """Ids of the plays that no later run counts; None until a run has found `e` active."""

    def reconcile(
        self, as_of: datetime, challenge_ids: tuple[str, ...] | None = None, *, dry_run: bool = False
    ) -> list[Outcome]:
        """One run over the challenges (all by default), in run order. A dry run reports and keeps nothing."""
        if dry_run:
            return copy.deepcopy(self).reconcile(as_of, challenge_ids)
        names = [name for name in RUN_ORDER if challenge_ids is None or name in challenge_ids]
        return [self._run(name, as_of) for name in names]

    def _run(self, name: str, as_of: datetime) -> Outcome:
        challenge = self.sources.challenges.get(name)
        if challenge is None or not challenge.active:
            if name == "e" and self.seen_plays is not None:
                self.seen_plays |= {play.id for play in self.sources.plays}
            return Outcome(name, "absent" if challenge is None else "inactive")

        before = dict(self.user_challenges)
        try:
            terms = self._terms(challenge, as_of)
            self._processor(name)(terms)
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

    def _terms(self, challenge: Challenge, as_of: datetime) -> _Terms:
        amount = challenge.amount.strip()
        if not re.fullmatch("[0-9]+", amount) or int(amount) > GREATEST_INTEGER:
            raise ChallengeError(challenge.id, challenge.amount)
        target = 1
        if challenge.type == "numeric":
            if challenge.step_count is None or challenge.step_count < 1:
                raise ChallengeError(challenge.id, "step_count")
            target = challenge.step_count
        return _Terms(
            id=challenge.id,
            amount=int(amount),
            target=target,
            starting_block=challenge.starting_block or 0,
            as_of=as_of.astimezone(UTC),
            block=self.sources.greatest_block(),
        )

    def _processor(self, name: str) -> Callable[[_Terms], None]:
        return {
            "u": self._track_upload,
            "fp": self._first_playlist,
            "p": self._profile_completion,
            "v": self._verified,
            "e": self._listen_streak,
            "p1": self._play_milestone,
            "p2": self._play_milestone,
            "p3": self._play_milestone,
            "tt": self._trending,
            "tut": self._trending,
            "tp": self._trending,
        }[name]

    # Users

    def person(self, user_id: int | None) -> User | None:
        """The row that decides about a user; None without a current row, or if that row is deactivated."""
        versions = [row for row in self.sources.users if row.user_id == user_id and row.is_current]
        if not versions:
            return None
        decisive = max(versions, key=lambda row: (row.blocknumber or 0, row.txhash))
        return None if decisive.is_deactivated else decisive

    def _people(self) -> list[User]:
        ids = sorted({row.user_id for row in self.sources.users})
        return [person for user_id in ids if (person := self.person(user_id))]

    # What every challenge does with a user's progress

    def _progress(self, terms: _Terms, user_id: int, specifier: str, progress: int) -> None:
        steps = max(0, min(progress, terms.target))
        complete = progress >= terms.target
        row = self.user_challenges.get((terms.id, specifier))
        if row is None:
            if progress < 1:
                return
            row = UserChallenge(terms.id, specifier, user_id, False, steps, None, terms.amount, terms.as_of, None)
        elif row.is_complete:
            return
        row = replace(row, current_step_count=steps, amount=terms.amount)
        if complete:
            row = _completed(row, terms.as_of, terms.block)
        self.user_challenges[terms.id, specifier] = row

    # p

    def _profile_completion(self, terms: _Terms) -> None:
        for person in self._people():
            if person.handle_lc is None:
                continue
            completion = self._steps_of(person)
            if completion.steps() >= 1 or person.user_id in self.challenge_profile_completion:
                self.challenge_profile_completion[person.user_id] = completion
            self._progress(terms, person.user_id, specifier_of(person.user_id), completion.steps())

    def _steps_of(self, person: User) -> ProfileCompletion:
        user_id = person.user_id
        followees = {
            row.followee_user_id
            for row in self.sources.follows
            if row.follower_user_id == user_id and row.is_current and not row.is_delete
        }
        return ProfileCompletion(
            user_id=user_id,
            profile_description=person.bio is not None,
            profile_name=person.name is not None,
            profile_picture=(person.profile_picture, person.profile_picture_sizes) != (None, None),
            profile_cover_photo=(person.cover_photo, person.cover_photo_sizes) != (None, None),
            follows=len(followees) >= FOLLOWS_NEEDED,
            favorites=any(
                row.user_id == user_id and row.is_current and not row.is_delete for row in self.sources.saves
            ),
            reposts=any(
                row.user_id == user_id and row.is_current and not row.is_delete for row in self.sources.reposts
            ),
        )

    # u, fp, v

    def _track_upload(self, terms: _Terms) -> None:
        for person in self._people():
            uploads = {
                row.track_id
                for row in self.sources.tracks
                if row.owner_id == person.user_id
                and row.is_current
                and not row.is_delete
                and not row.is_unlisted
                and row.stem_of is None
                and (row.blocknumber or 0) >= terms.starting_block
            }
            self._progress(terms, person.user_id, specifier_of(person.user_id), len(uploads))

    def _first_playlist(self, terms: _Terms) -> None:
        for person in self._people():
            has_one = any(
                row.playlist_owner_id == person.user_id
                and row.is_current
                and not row.is_delete
                and (row.blocknumber or 0) >= terms.starting_block
                for row in self.sources.playlists
            )
            self._progress(terms, person.user_id, specifier_of(person.user_id), int(has_one))

    def _verified(self, terms: _Terms) -> None:
        for person in self._people():
            self._progress(terms, person.user_id, specifier_of(person.user_id), int(person.is_verified))

    # e

    def _listen_streak(self, terms: _Terms) -> None:
        seen = self.seen_plays or set()
        fresh = [play for play in self.sources.plays if play.id not in seen]
        for play in sorted(fresh, key=lambda play: (play.created_at, play.id)):
            if play.user_id is not None and self.person(play.user_id):
                self._listen(play.user_id, play.created_at, terms.block)
        self.seen_plays = seen | {play.id for play in fresh}

    def _listen(self, user_id: int, at: datetime, block: int) -> None:
        """One listen of an eligible user, at a naive UTC time."""
        streak = 1
        state = self.challenge_listen_streak.get(user_id)
        if state and state.last_listen_date:
            gap = at - state.last_listen_date
            if gap < LISTENS_TOGETHER:
                return
            if gap < STREAK_BREAKS:
                streak = state.listen_streak + 1
        self.challenge_listen_streak[user_id] = ListenStreak(user_id, at, streak)

        running = self._running_row(user_id, at, streak) if streak > 1 else None
        if running is None and streak > STREAK_TARGET:
            extra = _new_streak_row(user_id, at, 1, EXTRA_DAY_AMOUNT)
            self._write_streak_row(_completed(extra, at, block))
            return
        row = running or _new_streak_row(user_id, at, streak, STREAK_AMOUNT)
        row = replace(row, current_step_count=min(streak, STREAK_TARGET), amount=STREAK_AMOUNT)
        self._write_streak_row(row if streak < STREAK_TARGET else _completed(row, at, block))

    def _running_row(self, user_id: int, at: datetime, streak: int) -> UserChallenge | None:
        rows = [row for key, row in self.user_challenges.items() if key[0] == "e" and row.user_id == user_id]
        if not rows:
            return None
        latest = max(rows, key=lambda row: (row.created_at, row.specifier))
        oldest_start = at.replace(tzinfo=UTC) - streak * STREAK_BREAKS
        return None if latest.is_complete or latest.created_at < oldest_start else latest

    def _write_streak_row(self, row: UserChallenge) -> None:
        """Opens the row or continues the incomplete one with its specifier; a complete one is left."""
        there = self.user_challenges.get(("e", row.specifier))
        if there is None:
            self.user_challenges["e", row.specifier] = row
        elif not there.is_complete:
            self.user_challenges["e", row.specifier] = replace(row, user_id=there.user_id, created_at=there.created_at)

    # p1, p2, p3

    def _play_milestone(self, terms: _Terms) -> None:
        previous = PREVIOUS_MILESTONE.get(terms.id)
        for person in self._people():
            hex_id = specifier_of(person.user_id)
            if not person.is_verified:
                continue
            if previous:
                gate = self.user_challenges.get((previous, f"{hex_id}:{MILESTONES[previous]}"))
                if gate is None or not gate.is_complete:
                    continue
            owned = {
                row.track_id
                for row in self.sources.tracks
                if row.owner_id == person.user_id and row.is_current and not row.is_delete
            }
            plays = sum(
                row.count
                for row in self.sources.aggregate_monthly_plays
                if row.play_item_id in owned and row.timestamp >= PLAYS_COUNT_FROM
            )
            self._progress(terms, person.user_id, f"{hex_id}:{MILESTONES[terms.id]}", plays)

    # tt, tut, tp

    def _trending(self, terms: _Terms) -> None:
        week = terms.as_of.date()
        kind = TRENDING_TYPES[terms.id]
        if week.weekday() != FRIDAY:
            return
        if any(
            (row.type, row.version, row.week) == (kind, TRENDING_VERSION, week)
            for row in self.trending_results.values()
        ):
            return

        winners = {
            "tt": self._trending_tracks,
            "tut": self._underground_tracks,
            "tp": self._trending_playlists,
        }
        rows = [
            (rank, item_id, owner_id, f"{week:%Y-%m-%d}:{rank}")
            for rank, (item_id, owner_id) in enumerate(winners[terms.id]()[:WINNERS], start=1)
        ]
        for _, _, _, specifier in rows:
            if (terms.id, specifier) in self.user_challenges:
                raise ChallengeError
        for rank, item_id, owner_id, specifier in rows:
            result = TrendingResult(owner_id, str(item_id), rank, kind, TRENDING_VERSION, week)
            self.trending_results[rank, kind, TRENDING_VERSION, week] = result
            amounts = (100, 10) if terms.id == "tp" else (1000, 100)
            row = UserChallenge(
                challenge_id=terms.id,
                specifier=specifier,
                user_id=owner_id,
                is_complete=False,
                current_step_count=1,
                completed_blocknumber=None,
                amount=amounts[0] if rank <= 5 else amounts[1],
                created_at=terms.as_of,
                completed_at=None,
            )
            self.user_challenges[terms.id, specifier] = _completed(row, terms.as_of, terms.block)

    def _ranked(self, scores: dict[int, float], owner_of: Callable[[int], int | None]) -> list[tuple[int, int]]:
        """The eligible items with their owners, the best first: by score, then id, both descending."""
        order = sorted(scores, key=lambda item: (scores[item], item), reverse=True)
        owners = [(item, owner_of(item)) for item in order]
        return [(item, owner) for item, owner in owners if owner is not None and self.person(owner)]

    def _track_scores(self, kind: str) -> dict[int, float]:
        return {
            row.track_id: row.score
            for row in self.sources.track_trending_scores
            if (row.type, row.version, row.time_range) == (kind, TRENDING_VERSION, TRENDING_RANGE)
        }

    def _owner_of_track(self, track_id: int) -> int | None:
        versions = [
            row
            for row in self.sources.tracks
            if row.track_id == track_id
            and row.is_current
            and not row.is_delete
            and not row.is_unlisted
            and row.is_available
        ]
        decisive = max(versions, key=lambda row: (row.blocknumber or 0, row.txhash), default=None)
        return decisive.owner_id if decisive else None

    def _trending_tracks(self) -> list[tuple[int, int]]:
        return self._ranked(self._track_scores("TRACKS"), self._owner_of_track)

    def _underground_tracks(self) -> list[tuple[int, int]]:
        trending = self._trending_tracks()
        if not trending:
            return []
        top = {track_id for track_id, _ in trending[:TOP_TRACKS]}
        scores = self._track_scores("UNDERGROUND_TRACKS")
        return [
            (track_id, owner)
            for track_id, owner in self._ranked(scores, self._owner_of_track)
            if track_id not in top and self._is_underground(owner)
        ]

    def _is_underground(self, user_id: int) -> bool:
        counters = self.sources.aggregate_user.get(user_id) or UserCounters(user_id)
        followers, following = counters.follower_count or 0, counters.following_count or 0
        return followers < UNDERGROUND_BELOW and following < UNDERGROUND_BELOW

    def _owner_of_playlist(self, playlist_id: int) -> int | None:
        versions = [
            row
            for row in self.sources.playlists
            if row.playlist_id == playlist_id and row.is_current and not row.is_delete and not row.is_private
        ]
        decisive = max(versions, key=lambda row: (row.blocknumber or 0, row.txhash), default=None)
        return decisive.playlist_owner_id if decisive else None

    def _trending_playlists(self) -> list[tuple[int, int]]:
        scores = {
            row.playlist_id: row.score
            for row in self.sources.playlist_trending_scores
            if (row.type, row.version, row.time_range) == ("PLAYLISTS", TRENDING_VERSION, TRENDING_RANGE)
        }
        return self._ranked(scores, self._owner_of_playlist)


def _completed(row: UserChallenge, at: datetime, block: int) -> UserChallenge:
    """The row as it completes, at an aware or naive UTC time."""
    return replace(row, is_complete=True, completed_at=at.replace(tzinfo=None), completed_blocknumber=block)


def _new_streak_row(user_id: int, at: datetime, steps: int, amount: int) -> UserChallenge:
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


#
# The catalog.
#


def catalog(environment: Literal["prod", "stage", "dev"] = "prod") -> list[Challenge]:
    """The rows that an environment's catalog has."""
    prod = [
        Challenge("p", "numeric", "1", True, 7, 0, 25000, 7),
        Challenge("u", "numeric", "1", True, 3, 25346436, 25000, 7),
        Challenge("fp", "boolean", "2", True, None, 28350000, 25000, 7),
        Challenge("v", "boolean", "5", True, None, 0, 25000, None),
        Challenge("e", "aggregate", "1", False, 2147483647, 116023891, 25000, None),
        Challenge("p1", "numeric", "25", True, 250, 0, 2147483647, 7),
        Challenge("p2", "numeric", "100", True, 1000, 0, 2147483647, 7),
        Challenge("p3", "numeric", "1000", True, 10000, 0, 2147483647, 7),
        Challenge("tt", "trending", "1000", True, None, 25346436, 100000, None),
        Challenge("tut", "trending", "1000", True, None, 25346436, 100000, None),
        Challenge("tp", "trending", "100", True, None, 25346436, 10000, None),
    ]
    if environment == "prod":
        return prod
    stage: dict[str, dict[str, Any]] = {
        "p": {"cooldown_days": 0},
        "u": {"starting_block": 0, "cooldown_days": 0},
        "e": {"active": True},
        "fp": {"starting_block": 0},
        "tt": {"starting_block": 0, "weekly_pool": 10000},
        "tut": {"starting_block": 0, "weekly_pool": 10000},
        "tp": {"starting_block": 0, "weekly_pool": 10000},
    }
    rows = [replace(row, **stage.get(row.id, {})) for row in prod]
    if environment == "stage":
        return rows
    rows = [row if row.cooldown_days is None else replace(row, cooldown_days=0) for row in rows]
    return [replace(row, starting_block=0) if row.id == "e" else row for row in rows]
