"""The rows that the model knows: source tables and the catalog, which it reads, and the derived tables, which it fills.

A class is a table and its fields are columns, with defaults for a row that counts. A new source table is a class here
and a line in `Sources`. Times are UTC; `timestamp` columns are naive datetimes, `timestamptz` columns aware ones, as
psycopg returns them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, TypeVar

JANUARY = datetime(2025, 1, 1, tzinfo=UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Row:
    """A row of a source table or of the catalog."""

    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]
    FILLERS: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Columns that the table demands and no rule reads."""

    @property
    def key(self) -> tuple[Hashable, ...]:
        """The values of the primary key."""
        return tuple(getattr(self, name) for name in self.KEY)

    def block(self) -> int | None:
        """The number of the block that the row is stamped with, if its table has them."""
        number: int | None = getattr(self, "blocknumber", None)
        return number

    def values(self) -> dict[str, Any]:
        """Column names and values, in the order of the fields."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


@dataclass(frozen=True)
class Block(Row):
    TABLE = "blocks"
    KEY = ("blockhash",)

    blockhash: str
    number: int | None

    def block(self) -> int | None:
        return self.number


@dataclass(frozen=True)
class User(Row):
    TABLE = "users"
    KEY = ("user_id", "txhash")
    FILLERS = MappingProxyType({"created_at": "2025-01-01", "updated_at": "2025-01-01"})

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
    FILLERS = MappingProxyType({"created_at": "2025-01-01"})

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
    created_at: datetime = JANUARY


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
    created_at: datetime = JANUARY


@dataclass(frozen=True)
class Track(Row):
    TABLE = "tracks"
    KEY = ("track_id", "txhash")
    FILLERS = MappingProxyType({"created_at": "2025-01-01", "updated_at": "2025-01-01"})

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
    pinned_comment_id: int | None = None


@dataclass(frozen=True)
class Remix(Row):
    TABLE = "remixes"
    KEY = ("parent_track_id", "child_track_id")

    parent_track_id: int
    child_track_id: int


@dataclass(frozen=True)
class Playlist(Row):
    TABLE = "playlists"
    KEY = ("playlist_id", "txhash")
    FILLERS = MappingProxyType({"created_at": "2025-01-01", "updated_at": "2025-01-01", "playlist_contents": "[]"})

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
    FILLERS = MappingProxyType({"updated_at": "2025-01-01"})

    id: int
    user_id: int | None
    play_item_id: int
    created_at: datetime


@dataclass(frozen=True)
class Comment(Row):
    TABLE = "comments"
    KEY = ("comment_id",)
    FILLERS = MappingProxyType({"updated_at": "2025-01-01", "text": "Nice.", "txhash": "", "blockhash": ""})

    comment_id: int
    user_id: int
    entity_id: int
    entity_type: str = "Track"
    created_at: datetime = JANUARY
    is_delete: bool | None = False
    is_visible: bool | None = True
    blocknumber: int | None = None


@dataclass(frozen=True)
class UserEvent(Row):
    TABLE = "user_events"
    KEY = ("id",)

    id: int
    user_id: int
    referrer: int | None = None
    is_mobile_user: bool = False
    is_current: bool = True
    blocknumber: int | None = None


@dataclass(frozen=True)
class Event(Row):
    TABLE = "events"
    KEY = ("event_id",)
    FILLERS = MappingProxyType({"created_at": "2025-01-01", "txhash": "", "blockhash": ""})

    event_id: int
    user_id: int
    event_data: str | None
    """JSON text, as PostgreSQL prints it."""
    event_type: str = "remix_contest"
    is_deleted: bool | None = False
    blocknumber: int | None = None
    updated_at: datetime = JANUARY


@dataclass(frozen=True)
class Disbursement(Row):
    TABLE = "challenge_disbursements"
    KEY = ("challenge_id", "specifier")
    FILLERS = MappingProxyType({"signature": "signature", "slot": "1", "amount": "100000000"})

    challenge_id: str
    specifier: str
    user_id: int = 1


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
    FILLERS = MappingProxyType({"created_at": "2025-01-01"})

    track_id: int
    score: float
    type: str = "TRACKS"
    version: str = "pnagD"
    time_range: str = "week"


@dataclass(frozen=True)
class PlaylistScore(Row):
    TABLE = "playlist_trending_scores"
    KEY = ("playlist_id", "type", "version", "time_range")
    FILLERS = MappingProxyType({"created_at": "2025-01-01"})

    playlist_id: int
    score: float
    type: str = "PLAYLISTS"
    version: str = "pnagD"
    time_range: str = "week"


@dataclass(frozen=True)
class Purchase(Row):
    TABLE = "sol_purchases"
    KEY = ("signature", "instruction_index")
    FILLERS = MappingProxyType({"from_account": "account", "access_type": "stream"})

    signature: str
    instruction_index: int
    buyer_user_id: int
    content_id: int
    content_type: str = "track"
    amount: int = 1_000_000
    """Millionths of a dollar."""
    is_valid: bool | None = True
    slot: int = 300_000_000
    valid_after_blocknumber: int = 0


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
    remixes: Table[Remix] = field(default_factory=Table)
    comments: Table[Comment] = field(default_factory=Table)
    playlists: Table[Playlist] = field(default_factory=Table)
    plays: Table[Play] = field(default_factory=Table)
    events: Table[Event] = field(default_factory=Table)
    user_events: Table[UserEvent] = field(default_factory=Table)
    challenge_disbursements: Table[Disbursement] = field(default_factory=Table)
    aggregate_monthly_plays: Table[MonthlyPlays] = field(default_factory=Table)
    aggregate_user: Table[UserCounters] = field(default_factory=Table)
    track_trending_scores: Table[TrackScore] = field(default_factory=Table)
    playlist_trending_scores: Table[PlaylistScore] = field(default_factory=Table)
    sol_purchases: Table[Purchase] = field(default_factory=Table)
    challenges: Table[Challenge] = field(default_factory=Table)

    def tables(self) -> dict[str, Table[Any]]:
        """All of them, by name."""
        return {table.name: getattr(self, table.name) for table in fields(self)}

    def revert(self, number: int) -> None:
        """Deletes a block, and with it every row that is stamped with its number."""
        for table in self.tables().values():
            table.delete(lambda row: row.block() == number)

    def greatest_block(self) -> int:
        """The greatest of `blocks.number`, as far as histories go: they have no absurd ones; 0 if there are none."""
        numbers = [row.block() for table in self.tables().values() for row in table]
        return max((number for number in numbers if number is not None), default=0)


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
