"""What happens to the sources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from tests.model.challenges.play_milestones import MILESTONES, milestone_specifier
from tests.model.rows import (
    JANUARY,
    Block,
    Comment,
    Disbursement,
    Follow,
    ListenStreak,
    MonthlyPlays,
    Playlist,
    PlaylistScore,
    Purchase,
    Remix,
    Repost,
    Save,
    Track,
    TrackScore,
    UserChallenge,
    UserCounters,
    UserEvent,
)
from tests.model.rows import Event as ContestRow
from tests.model.rules import specifier_of
from tests.model.spaces import BASE, CHARTED, FANS, PAID_BEFORE, UNHEARD, USERS, WINNERS, WON_TRACKS
from tests.model.world import World

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")


class Event(Protocol):
    """Something that happens; its fields say all about it, so that a failing history can be read."""

    def happen(self, world: World) -> None: ...


@dataclass(frozen=True)
class UserVersion:
    """A new version of a user; the old ones lose is_current, unless they are kept by mistake."""

    user_id: int
    txhash: str
    blocknumber: int | None
    filled: tuple[str, ...]
    has_handle: bool = True
    is_verified: bool = False
    is_deactivated: bool = False
    is_current: bool = True
    keeps_old: bool = False

    def happen(self, world: World) -> None:
        if not self.keeps_old:
            world.sources.users.update(lambda row: row.user_id == self.user_id, is_current=False)
        world.person(
            self.user_id,
            txhash=self.txhash,
            blocknumber=world.stamp(self.blocknumber),
            handle_lc="handle" if self.has_handle else None,
            is_verified=self.is_verified,
            is_deactivated=self.is_deactivated,
            is_current=self.is_current,
            **dict.fromkeys(self.filled, "something"),
        )


@dataclass(frozen=True)
class UserRepair:
    """A column set by hand in all versions of a user, whose block numbers stay."""

    user_id: int
    column: Literal["is_verified", "is_deactivated", "name", "bio", "profile_picture_sizes", "handle_lc"]
    value: bool

    def happen(self, world: World) -> None:
        value: object = self.value
        if not self.column.startswith("is_"):
            value = "something" if self.value else None
        world.sources.users.update(lambda row: row.user_id == self.user_id, **{self.column: value})


@dataclass(frozen=True)
class Follows:
    """A user follows several others, or no longer."""

    user_id: int
    first: int
    count: int
    txhash: str
    blocknumber: int | None
    is_delete: bool
    is_current: bool

    def happen(self, world: World) -> None:
        for followee in range(self.first, self.first + self.count):
            world.sources.follows.put(
                Follow(
                    self.user_id,
                    followee,
                    self.txhash,
                    self.is_current,
                    self.is_delete,
                    world.stamp(self.blocknumber),
                )
            )


@dataclass(frozen=True)
class Likes:
    """A user saves or reposts, or no longer."""

    user_id: int
    table: Literal["saves", "reposts"]
    item_id: int
    item_type: Literal["track", "playlist", "album"]
    txhash: str
    blocknumber: int | None
    is_delete: bool
    is_current: bool
    created_at: datetime = JANUARY

    def happen(self, world: World) -> None:
        block = world.stamp(self.blocknumber)
        state = (self.txhash, self.is_current, self.is_delete, block, self.created_at)
        if self.table == "saves":
            world.sources.saves.put(Save(self.user_id, self.item_id, self.item_type, *state))
        else:
            world.sources.reposts.put(Repost(self.user_id, self.item_id, self.item_type, *state))


@dataclass(frozen=True)
class Cosigns:
    """Somebody makes remixes of an artist's track, one for each time, and the artist saves or reposts them then."""

    artist: int
    parent: int
    maker: int
    first: int
    times: tuple[datetime, ...]
    blocknumber: int | None
    table: Literal["saves", "reposts"] = "saves"

    def happen(self, world: World) -> None:
        block = world.stamp(self.blocknumber)
        world.sources.tracks.put(Track(self.parent, self.artist, blocknumber=block))
        for remix, at in enumerate(self.times, self.first):
            world.sources.tracks.put(Track(remix, self.maker, blocknumber=block))
            world.sources.remixes.put(Remix(self.parent, remix))
            Likes(self.artist, self.table, remix, "track", "0xa", block, False, True, at).happen(world)


@dataclass(frozen=True)
class MakeRemix:
    """A track is of another one from now on, whatever they are."""

    parent: int
    child: int

    def happen(self, world: World) -> None:
        world.sources.remixes.put(Remix(self.parent, self.child))


@dataclass(frozen=True)
class LeftoverCosign:
    """An earlier service has rewarded somebody for a remix that an artist had cosigned."""

    artist: int
    remix: int
    at: datetime

    def happen(self, world: World) -> None:
        at = self.at.replace(tzinfo=UTC)
        world.leave_user_challenge(
            UserChallenge("cs", f"{self.artist:x}:{self.remix:x}", 7, True, 1, None, 1, at, self.at)
        )


@dataclass(frozen=True)
class Fans:
    """More users repost and save a track than can be first."""

    track_id: int

    def happen(self, world: World) -> None:
        for number in range(14):
            world.person(FANS + number)
            at = JANUARY + timedelta(days=number % 5)
            world.sources.reposts.put(Repost(FANS + number, self.track_id, created_at=at))
            world.sources.saves.put(Save(FANS + 13 - number, self.track_id, created_at=at))


@dataclass(frozen=True)
class CompleteProfile:
    """All seven steps at once, as far as the user has a row."""

    user_id: int

    def happen(self, world: World) -> None:
        columns = {"name": "a", "bio": "b", "profile_picture": "c", "cover_photo_sizes": "d"}
        world.sources.users.update(lambda row: row.user_id == self.user_id, **columns)
        for followee in range(5):
            world.sources.follows.put(Follow(self.user_id, followee))
        world.sources.saves.put(Save(self.user_id, 1))
        world.sources.reposts.put(Repost(self.user_id, 1))


@dataclass(frozen=True)
class Upload:
    """Several tracks, new or updated in place, or second current versions of them."""

    owner_id: int
    first: int
    count: int
    txhash: str
    blocknumber: int | None
    is_current: bool = True
    is_delete: bool = False
    is_unlisted: bool = False
    is_available: bool = True
    stem_of: str | None = None

    def happen(self, world: World) -> None:
        for track_id in range(self.first, self.first + self.count):
            world.sources.tracks.put(
                Track(
                    track_id,
                    self.owner_id,
                    self.txhash,
                    self.is_current,
                    self.is_delete,
                    self.is_unlisted,
                    self.is_available,
                    self.stem_of,
                    world.stamp(self.blocknumber),
                )
            )


@dataclass(frozen=True)
class Remark:
    """A comment, new or updated in place, which is pinned at once or not."""

    comment_id: int
    user_id: int
    track_id: int
    blocknumber: int | None
    entity_type: str = "Track"
    is_delete: bool | None = False
    is_pinned: bool = False

    def happen(self, world: World) -> None:
        block = world.stamp(self.blocknumber)
        world.sources.comments.put(
            Comment(
                self.comment_id,
                self.user_id,
                self.track_id,
                self.entity_type,
                is_delete=self.is_delete,
                blocknumber=block,
            )
        )
        if self.is_pinned:
            Pin(self.track_id, self.comment_id).happen(world)


@dataclass(frozen=True)
class Pin:
    """A comment is pinned to a track, or none is any more; no block number moves."""

    track_id: int
    comment_id: int | None

    def happen(self, world: World) -> None:
        world.sources.tracks.update(lambda row: row.track_id == self.track_id, pinned_comment_id=self.comment_id)


@dataclass(frozen=True)
class Compile:
    """A playlist or an album, new or updated in place, or a second current version of it."""

    owner_id: int
    playlist_id: int
    txhash: str
    blocknumber: int | None
    is_current: bool = True
    is_delete: bool = False
    is_album: bool = False
    is_private: bool = False

    def happen(self, world: World) -> None:
        world.sources.playlists.put(
            Playlist(
                self.playlist_id,
                self.owner_id,
                self.txhash,
                self.is_current,
                self.is_delete,
                self.is_album,
                self.is_private,
                world.stamp(self.blocknumber),
            )
        )


@dataclass(frozen=True)
class HandOver:
    """A track, or playlist, gets another owner in place."""

    item_id: int
    owner_id: int

    def happen(self, world: World) -> None:
        world.sources.tracks.update(lambda row: row.track_id == self.item_id, owner_id=self.owner_id)
        world.sources.playlists.update(lambda row: row.playlist_id == self.item_id, playlist_owner_id=self.owner_id)


@dataclass(frozen=True)
class Delete:
    """A repair deletes one row of a table."""

    table: str
    position: int

    def happen(self, world: World) -> None:
        table = world.sources.tables()[self.table]
        if len(table):
            victim = list(table)[self.position % len(table)]
            table.delete(lambda row: row == victim)


@dataclass(frozen=True)
class Revert:
    """A block is reverted, and every row with its number is gone."""

    number: int

    def happen(self, world: World) -> None:
        world.sources.revert(self.number)


@dataclass(frozen=True)
class NewBlock:
    """A block without a row of ours; some blocks have no number."""

    number: int | None

    def happen(self, world: World) -> None:
        world.sources.blocks.put(Block(f"hash-{self.number}", self.number))


@dataclass(frozen=True)
class Listens:
    """Plays of a user, each some time after the one before; a negative gap is a play that arrives late."""

    user_id: int | None
    gaps: tuple[timedelta, ...]
    track_id: int

    def happen(self, world: World) -> None:
        for at in listening_times(world, self.user_id, self.gaps):
            world.listen(self.user_id, at, self.track_id)


@dataclass(frozen=True)
class UncommittedListens:
    """Plays in a transaction that stays open, while others with higher ids are seen."""

    user_id: int
    gaps: tuple[timedelta, ...]
    under_a_savepoint: bool

    def happen(self, world: World) -> None:
        times = listening_times(world, self.user_id, self.gaps)
        world.listen_uncommitted(self.user_id, times, under_a_savepoint=self.under_a_savepoint)


@dataclass(frozen=True)
class LateCommit:
    """The open transaction commits."""

    def happen(self, world: World) -> None:
        world.commit_late_writer()


@dataclass(frozen=True)
class OpenTransaction:
    """A writer that holds back what the change detection may take for finished."""

    def happen(self, world: World) -> None:
        world.database.hold_a_transaction_open()


@dataclass(frozen=True)
class SeePlaysAgain:
    """All plays get new row versions."""

    def happen(self, world: World) -> None:
        world.database.see_plays_again()


@dataclass(frozen=True)
class ListenNow:
    """A play at the present, perhaps in a pause."""

    user_id: int

    def happen(self, world: World) -> None:
        world.last_listen[self.user_id] = world.listen_now(self.user_id)


@dataclass(frozen=True)
class IndexPlaysAgain:
    """The indexer clears all plays and brings them again, with other ids."""

    def happen(self, world: World) -> None:
        world.index_plays_again()


@dataclass(frozen=True)
class StartStreaksFromNow:
    """Nothing that was listened before counts any more."""

    def happen(self, world: World) -> None:
        if world.streaks.has_begun:
            world.start_streaks_from_now()


@dataclass(frozen=True)
class Crowd:
    """Plays of others, more than the change detection keeps in view."""

    def happen(self, world: World) -> None:
        for minute in range(700):
            world.listen(None, BASE + minute * timedelta(minutes=1), UNHEARD)


@dataclass(frozen=True)
class PrunePlays:
    """Old plays go, the latest stay."""

    kept: int

    def happen(self, world: World) -> None:
        latest = sorted(world.sources.plays, key=lambda play: play.created_at, reverse=True)[: self.kept]
        world.sources.plays.delete(lambda play: play not in latest)


@dataclass(frozen=True)
class Comments:
    """A comment, new or changed in place, perhaps by another user or of another time."""

    comment_id: int
    user_id: int
    created_at: datetime
    is_delete: bool | None
    is_visible: bool | None
    blocknumber: int | None
    entity_type: str = "Track"

    def happen(self, world: World) -> None:
        world.sources.comments.put(
            Comment(
                self.comment_id,
                self.user_id,
                1,
                self.entity_type,
                self.created_at,
                self.is_delete,
                self.is_visible,
                world.stamp(self.blocknumber),
            )
        )


@dataclass(frozen=True)
class Moderation:
    """A column of a comment set by hand; its block number stays."""

    comment_id: int
    column: Literal["is_delete", "is_visible"]
    value: bool | None

    def happen(self, world: World) -> None:
        world.sources.comments.update(lambda row: row.comment_id == self.comment_id, **{self.column: self.value})


@dataclass(frozen=True)
class Arrival:
    """How a user has come: an event, new or changed in place."""

    id: int
    user_id: int
    referrer: int | None
    is_mobile_user: bool
    is_current: bool
    blocknumber: int | None

    def happen(self, world: World) -> None:
        world.sources.user_events.put(
            UserEvent(
                self.id,
                self.user_id,
                self.referrer,
                self.is_mobile_user,
                self.is_current,
                world.stamp(self.blocknumber),
            )
        )


@dataclass(frozen=True)
class Contest:
    """A contest, new or changed in place, perhaps in the hands of another host."""

    event_id: int
    host: int
    winners: tuple[str, ...] | None
    """Elements of an array, in JSON; None: no array."""
    updated_at: datetime
    is_deleted: bool | None
    event_type: str
    blocknumber: int | None

    def happen(self, world: World) -> None:
        world.sources.events.put(
            ContestRow(
                self.event_id,
                self.host,
                None if self.winners is None else f'{{"winners": [{", ".join(self.winners)}]}}',
                self.event_type,
                self.is_deleted,
                world.stamp(self.blocknumber),
                self.updated_at,
            )
        )


@dataclass(frozen=True)
class Winners:
    """Users with a track each, more of them than a contest may reward."""

    count: int

    def happen(self, world: World) -> None:
        for number in range(self.count):
            world.person(WINNERS + number)
            world.sources.tracks.put(Track(WON_TRACKS + number, WINNERS + number))


@dataclass(frozen=True)
class PaidBefore:
    """An earlier service has paid a deed: a disbursement, or a complete user challenge."""

    challenge_id: str
    specifier: str
    is_disbursement: bool

    def happen(self, world: World) -> None:
        if self.is_disbursement:
            world.sources.challenge_disbursements.put(Disbursement(self.challenge_id, self.specifier))
            return
        at = PAID_BEFORE
        world.leave_user_challenge(
            UserChallenge(self.challenge_id, self.specifier, 7, True, 1, None, 3, at, at.replace(tzinfo=None))
        )


@dataclass(frozen=True)
class PassOver:
    """start_from_now() of a challenge that rewards single deeds."""

    challenge_id: str

    def happen(self, world: World) -> None:
        world.pass_over(self.challenge_id)


@dataclass(frozen=True)
class Count:
    """The plays of a track in a month, set by hand."""

    track_id: int
    month: date
    country: str
    count: int

    def happen(self, world: World) -> None:
        world.sources.aggregate_monthly_plays.put(MonthlyPlays(self.track_id, self.month, self.count, self.country))


@dataclass(frozen=True)
class Hit:
    """A user's track with that many plays in a month."""

    owner_id: int
    track_id: int
    month: date
    count: int

    def happen(self, world: World) -> None:
        world.sources.tracks.put(Track(self.track_id, self.owner_id))
        world.sources.aggregate_monthly_plays.put(MonthlyPlays(self.track_id, self.month, self.count))


@dataclass(frozen=True)
class Chart:
    """Scores of tracks, or playlists, one after the other, which belong to the users in turn."""

    type: str
    first: int
    scores: tuple[float, ...]
    version: str = "pnagD"
    time_range: str = "week"

    def happen(self, world: World) -> None:
        for item_id, score in enumerate(self.scores, start=CHARTED + self.first):
            owner = USERS[item_id % len(USERS)]
            row = (item_id, score, self.type, self.version, self.time_range)
            if self.type == "PLAYLISTS":
                world.sources.playlist_trending_scores.put(PlaylistScore(*row))
                world.sources.playlists.put(Playlist(item_id, owner))
            else:
                world.sources.track_trending_scores.put(TrackScore(*row))
                world.sources.tracks.put(Track(item_id, owner))


@dataclass(frozen=True)
class Charts:
    """Scores of tracks in both charts, whose ids overlap."""

    scores: tuple[float, ...]
    first_underground: int
    underground_scores: tuple[float, ...]

    def happen(self, world: World) -> None:
        Chart("TRACKS", 0, self.scores).happen(world)
        Chart("UNDERGROUND_TRACKS", self.first_underground, self.underground_scores).happen(world)


@dataclass(frozen=True)
class Score:
    """One score, which may be of another version or time range, or of a track that is not there."""

    type: str
    item_id: int
    score: float
    version: str = "pnagD"
    time_range: str = "week"

    def happen(self, world: World) -> None:
        state = (self.item_id, self.score, self.type, self.version, self.time_range)
        world.sources.track_trending_scores.put(TrackScore(*state))
        world.sources.playlist_trending_scores.put(PlaylistScore(*state))


@dataclass(frozen=True)
class DropScores:
    """All scores of a type go, as when they are about to be computed again."""

    type: str

    def happen(self, world: World) -> None:
        world.sources.track_trending_scores.delete(lambda row: row.type == self.type)
        world.sources.playlist_trending_scores.delete(lambda row: row.type == self.type)


@dataclass(frozen=True)
class Counters:
    """How many follow a user, and how many the user follows."""

    user_id: int
    follower_count: int | None
    following_count: int | None

    def happen(self, world: World) -> None:
        world.sources.aggregate_user.put(UserCounters(self.user_id, self.follower_count, self.following_count))


@dataclass(frozen=True)
class Buy:
    """A purchase; with a signature and instruction that are there, that one is written again."""

    buyer_user_id: int
    content_id: int
    content_type: str
    amount: int
    is_valid: bool | None
    slot: int
    signature: str
    instruction_index: int
    valid_after_blocknumber: int

    def happen(self, world: World) -> None:
        world.sources.sol_purchases.put(
            Purchase(
                self.signature,
                self.instruction_index,
                self.buyer_user_id,
                self.content_id,
                self.content_type,
                self.amount,
                self.is_valid,
                self.slot,
                self.valid_after_blocknumber,
            )
        )


@dataclass(frozen=True)
class CheckPurchases:
    """Those purchases of somebody that wait for it are checked, one way or the other."""

    buyer_user_id: int
    is_valid: bool

    def happen(self, world: World) -> None:
        world.sources.sol_purchases.update(
            lambda row: row.buyer_user_id == self.buyer_user_id and row.is_valid is None, is_valid=self.is_valid
        )


@dataclass(frozen=True)
class AlterChallenge:
    """A column of the catalog changes."""

    id: str
    column: Literal["active", "amount", "step_count", "starting_block"]
    value: str | int | bool | None

    def happen(self, world: World) -> None:
        world.sources.challenges.update(lambda row: row.id == self.id, **{self.column: self.value})


@dataclass(frozen=True)
class RestoreChallenge:
    """A challenge is in the catalog as staging has it, `e` active."""

    id: str

    def happen(self, world: World) -> None:
        for row in world.database.staging:
            if row.id == self.id:
                world.sources.challenges.put(row)


@dataclass(frozen=True)
class RemoveChallenge:
    """A challenge leaves the catalog, as far as no user challenge holds it there."""

    id: str

    def happen(self, world: World) -> None:
        if not any(name == self.id for name, _ in world.model.user_challenges):
            world.sources.challenges.delete(lambda row: row.id == self.id)


@dataclass(frozen=True)
class Leftover:
    """A user challenge of an earlier service; it left complete ones without a block number."""

    challenge_id: Literal["u", "fp", "p", "v", "p1", "p2", "p3"]
    user_id: int
    is_complete: bool
    current_step_count: int | None
    amount: int

    def happen(self, world: World) -> None:
        is_milestone = self.challenge_id in MILESTONES
        specifier = milestone_specifier(self.challenge_id, self.user_id) if is_milestone else specifier_of(self.user_id)
        world.leave_user_challenge(
            UserChallenge(
                self.challenge_id,
                specifier,
                self.user_id,
                self.is_complete,
                self.current_step_count,
                None,
                self.amount,
                datetime(2025, 2, 3, 4, 5, 6, 789, UTC),
                BASE if self.is_complete else None,
            )
        )


@dataclass(frozen=True)
class LeftoverStreak:
    """State, and perhaps a running row, of an earlier service whose specifiers end with the day."""

    user_id: int
    streak: int
    last_listen_is_known: bool
    has_row: bool

    def happen(self, world: World) -> None:
        if self.user_id in world.model.challenge_listen_streak:
            return
        last = world.last_listen.setdefault(self.user_id, BASE)
        world.leave_streak(ListenStreak(self.user_id, last if self.last_listen_is_known else None, self.streak))
        start = last - timedelta(days=self.streak - 1, minutes=1)
        if self.has_row:
            world.leave_user_challenge(
                UserChallenge(
                    "e",
                    f"{self.user_id:x}:{start:%Y%m%d}",
                    self.user_id,
                    False,
                    min(self.streak, 7),
                    None,
                    7,
                    start.replace(tzinfo=UTC),
                    None,
                )
            )


@dataclass(frozen=True)
class ForeignWinner:
    """Somebody else wrote a user challenge of a week."""

    challenge_id: Literal["tt", "tut", "tp"]
    friday: date
    rank: int
    user_id: int

    def happen(self, world: World) -> None:
        at = datetime(self.friday.year, self.friday.month, self.friday.day, tzinfo=UTC)
        specifier = f"{self.friday}:{self.rank}"
        world.leave_user_challenge(
            UserChallenge(self.challenge_id, specifier, self.user_id, True, 1, None, 1, at, at.replace(tzinfo=None))
        )


@dataclass(frozen=True)
class LeftoverTaste:
    """An earlier service has rewarded somebody for a track."""

    user_id: int
    track_id: int

    def happen(self, world: World) -> None:
        at = datetime(2025, 2, 3, tzinfo=UTC)
        specifier = f"{specifier_of(self.user_id)}:t:{self.track_id:x}"
        row = UserChallenge("t", specifier, self.user_id, True, 1, None, 1, at, at.replace(tzinfo=None))
        world.leave_user_challenge(row)


@dataclass(frozen=True)
class Loss:
    """Somebody deletes an incomplete user challenge, a user's seven steps, or the state of a streak."""

    table: Literal["user_challenges", "challenge_profile_completion", "challenge_listen_streak"]
    position: int

    def happen(self, world: World) -> None:
        if self.table == "user_challenges":
            rows = [row for row in world.model.user_challenges.values() if not row.is_complete]
            for row in chosen(rows, self.position):
                world.lose_user_challenge(row.challenge_id, row.specifier)
        elif self.table == "challenge_listen_streak":
            for state in chosen(world.model.challenge_listen_streak.values(), self.position):
                world.lose_streak(state.user_id)
        else:
            for profile in chosen(world.model.challenge_profile_completion.values(), self.position):
                world.lose_profile(profile.user_id)


def chosen(rows: Iterable[D], position: int) -> list[D]:
    """One of the rows, or none if there are none."""
    ordered = sorted(rows, key=str)
    return [ordered[position % len(ordered)]] if ordered else []


def listening_times(world: World, user_id: int | None, gaps: tuple[timedelta, ...]) -> list[datetime]:
    """When a user listens, who listened last when the world remembers."""
    times = []
    for gap in gaps:
        world.last_listen[user_id] = world.last_listen.get(user_id, BASE) + gap
        times.append(world.last_listen[user_id])
    return times
