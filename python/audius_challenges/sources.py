"""The tables of the discovery schema, each declared once: its columns, the column that grows, who needs what on it.

The contract checks what a database has against these declarations, `grant_run` grants by them, the doctor misses by
them what was not granted, and a challenge reads the columns that its SQL names (`columns_read`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

# By their names in pg_type: how a session prints types depends on its settings.
INTEGER = ("int4", "int8")  # not int2: what is made of the numbers, such as to_hex(), does not take it
TEXT = ("varchar", "text")
BOOLEAN = ("bool",)
TIMESTAMP = ("timestamp",)
TIMESTAMPTZ = ("timestamptz",)
DATE = ("date",)
JSONB = ("jsonb",)
SAVETYPE = ("savetype",)
REPOSTTYPE = ("reposttype",)
EVENTTYPE = ("eventtype",)
FLOAT = ("float8", "float4", "numeric")

PRINTED_TYPES = {
    "int4": "integer",
    "int8": "bigint",
    "int2": "smallint",
    "varchar": "character varying",
    "text": "text",
    "bool": "boolean",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "date": "date",
    "jsonb": "jsonb",
    "savetype": "savetype",
    "reposttype": "reposttype",
    "eventtype": "eventtype",
    "float8": "double precision",
    "float4": "real",
    "numeric": "numeric",
}

Reads = Mapping[str, frozenset[str]]
"""Table name to the columns of it that something reads or writes."""


@dataclass(frozen=True)
class Table:
    """A table of the discovery schema.

    :ivar columns: every column that some challenge may name, with the types that it may have, the usual one first
    :ivar clock: the column that grows with what is written: a block number, or the `id` of plays; None if none does
    :ivar checked: the column that is null until a row was checked, and turned in place then; rows count that it is true
        of, and the index of the clock begins with it
    :ivar privileges: what a role that runs ticks needs on it
    :ivar is_optional: whether a database may lack it, and is then as one in which it is empty
    :ivar key: the columns of its primary key, of a table that we write
    """

    name: str
    columns: Mapping[str, tuple[str, ...]]
    clock: str | None = None
    checked: str | None = None
    privileges: str = "SELECT"
    is_optional: bool = False
    key: tuple[str, ...] = ()

    @property
    def empty(self) -> str:
        """SQL of the same table without a row, for where there is none."""
        columns = ", ".join(f"NULL::{types[0]} AS {name}" for name, types in self.columns.items())
        return f"(SELECT {columns} LIMIT 0)"


_DERIVED = "SELECT, INSERT, UPDATE"
_SCORE = {"type": TEXT, "version": TEXT, "time_range": TEXT, "score": FLOAT, "created_at": TIMESTAMP}
_VERSION = {"is_current": BOOLEAN, "is_delete": BOOLEAN, "blocknumber": INTEGER, "txhash": TEXT}

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            "users",
            {
                "user_id": INTEGER,
                "is_current": BOOLEAN,
                "handle_lc": TEXT,
                "name": TEXT,
                "bio": TEXT,
                "profile_picture": TEXT,
                "profile_picture_sizes": TEXT,
                "cover_photo": TEXT,
                "cover_photo_sizes": TEXT,
                "is_verified": BOOLEAN,
                "is_deactivated": BOOLEAN,
                "blocknumber": INTEGER,
                "updated_at": TIMESTAMP,
                "txhash": TEXT,
            },
            clock="blocknumber",
        ),
        Table(
            "follows",
            {"follower_user_id": INTEGER, "followee_user_id": INTEGER, "created_at": TIMESTAMP, **_VERSION},
            clock="blocknumber",
        ),
        Table(
            "saves",
            {"user_id": INTEGER, "save_item_id": INTEGER, "save_type": SAVETYPE, "created_at": TIMESTAMP, **_VERSION},
            clock="blocknumber",
        ),
        Table(
            "reposts",
            {
                "user_id": INTEGER,
                "repost_item_id": INTEGER,
                "repost_type": REPOSTTYPE,
                "created_at": TIMESTAMP,
                **_VERSION,
            },
            clock="blocknumber",
        ),
        Table(
            "tracks",
            {
                "track_id": INTEGER,
                "owner_id": INTEGER,
                "is_unlisted": BOOLEAN,
                "is_available": BOOLEAN,
                "stem_of": JSONB,
                "pinned_comment_id": INTEGER,
                "created_at": TIMESTAMP,
                "updated_at": TIMESTAMP,
                **_VERSION,
            },
            clock="blocknumber",
        ),
        Table(
            "playlists",
            {
                "playlist_id": INTEGER,
                "playlist_owner_id": INTEGER,
                "is_private": BOOLEAN,
                "created_at": TIMESTAMP,
                "updated_at": TIMESTAMP,
                **_VERSION,
            },
            clock="blocknumber",
        ),
        Table("remixes", {"parent_track_id": INTEGER, "child_track_id": INTEGER}),
        Table(
            "comments",
            {
                "comment_id": INTEGER,
                "user_id": INTEGER,
                "entity_id": INTEGER,
                "entity_type": TEXT,
                "is_delete": BOOLEAN,
                "is_visible": BOOLEAN,
                "blocknumber": INTEGER,
                "created_at": TIMESTAMP,
            },
            clock="blocknumber",
        ),
        Table(
            "events",
            {
                "event_id": INTEGER,
                "event_type": EVENTTYPE,
                "user_id": INTEGER,
                "is_deleted": BOOLEAN,
                "event_data": JSONB,
                "blocknumber": INTEGER,
                "updated_at": TIMESTAMP,
            },
            clock="blocknumber",
        ),
        Table(
            "user_events",
            {
                "id": INTEGER,
                "user_id": INTEGER,
                "is_current": BOOLEAN,
                "referrer": INTEGER,
                "is_mobile_user": BOOLEAN,
                "blocknumber": INTEGER,
            },
            clock="blocknumber",
        ),
        Table(
            "sol_purchases",
            {
                "signature": TEXT,
                "instruction_index": INTEGER,
                "amount": INTEGER,
                "slot": INTEGER,
                "content_type": TEXT,
                "content_id": INTEGER,
                "buyer_user_id": INTEGER,
                "valid_after_blocknumber": INTEGER,
                "is_valid": BOOLEAN,
            },
            clock="valid_after_blocknumber",
            checked="is_valid",
        ),
        Table(
            "plays",
            {"id": INTEGER, "user_id": INTEGER, "play_item_id": INTEGER, "created_at": TIMESTAMP},
            clock="id",
        ),
        Table("aggregate_monthly_plays", {"play_item_id": INTEGER, "timestamp": DATE, "count": INTEGER}),
        Table("aggregate_user", {"user_id": INTEGER, "follower_count": INTEGER, "following_count": INTEGER}),
        Table(
            "track_trending_scores",
            {"track_id": INTEGER, **_SCORE},
        ),
        Table(
            "playlist_trending_scores",
            {"playlist_id": INTEGER, **_SCORE},
        ),
        Table("blocks", {"number": INTEGER}),
        Table(
            "challenges",
            {"id": TEXT, "amount": TEXT, "active": BOOLEAN, "step_count": INTEGER, "starting_block": INTEGER},
            privileges=_DERIVED,
            key=("id",),
        ),
        Table(
            "user_challenges",
            {
                "challenge_id": TEXT,
                "user_id": INTEGER,
                "specifier": TEXT,
                "is_complete": BOOLEAN,
                "current_step_count": INTEGER,
                "completed_blocknumber": INTEGER,
                "amount": INTEGER,
                "created_at": TIMESTAMPTZ,
                "completed_at": TIMESTAMP,
            },
            privileges=_DERIVED,
            key=("challenge_id", "specifier"),
        ),
        Table(
            "challenge_profile_completion",
            {
                "user_id": INTEGER,
                "profile_description": BOOLEAN,
                "profile_name": BOOLEAN,
                "profile_picture": BOOLEAN,
                "profile_cover_photo": BOOLEAN,
                "follows": BOOLEAN,
                "favorites": BOOLEAN,
                "reposts": BOOLEAN,
            },
            privileges=_DERIVED,
            key=("user_id",),
        ),
        Table(
            "challenge_listen_streak",
            {"user_id": INTEGER, "last_listen_date": TIMESTAMP, "listen_streak": INTEGER},
            privileges=_DERIVED,
            key=("user_id",),
        ),
        Table(
            "trending_results",
            {"user_id": INTEGER, "id": TEXT, "rank": INTEGER, "type": TEXT, "version": TEXT, "week": DATE},
            privileges="SELECT, INSERT",
            key=("rank", "type", "version", "week"),
        ),
        Table("challenge_disbursements", {"challenge_id": TEXT, "specifier": TEXT}),
        Table("sol_reward_disbursements", {"challenge_id": TEXT, "specifier": TEXT}, is_optional=True),
        # Not ours to read: the application's triggers on user_challenges do, as the role that wrote the row.
        Table("notification", {}, privileges="SELECT, INSERT"),
        Table("user_score_features", {}, privileges=_DERIVED),
    )
}

WRITTEN = tuple(table.name for table in TABLES.values() if table.columns and "INSERT" in table.privileges)

EMPTIED = ("look", "set_aside", "history", "slice", "share_beat", "share_batch", "share_node")
"""The tables of the schema audius_challenges that runs delete rows from."""

WITHHELD = (
    "compile()",
    "grant_run(text)",
    "grant_status(text)",
    "install()",
    "plan_shares(integer)",
    "resend()",
    "share_tables()",
    "share_publications(integer)",
    "receive_share(text, text)",
    "join_share(text, text)",
    "adopt_share(text)",
    "finish_adoption()",
    "drop_shares()",
)
"""The routines of the schema audius_challenges that a role does not get with `grant_run`."""


@dataclass(frozen=True)
class Index:
    """An index that challenges read by.

    :ivar column: its first column, by which an index is known as this one
    :ivar where: SQL of the rows that are in it, all if empty
    :ivar further: the columns behind the first
    """

    table: str
    column: str
    where: str = ""
    further: str = ""

    def statement(self, schema: str = "", *, at_once: bool = False) -> str:
        """SQL that creates one.

        :param schema: of the table, quoted if it needs quotes
        :param at_once: not CONCURRENTLY, which a partitioned table does not take
        """
        table = f"{schema}.{self.table}" if schema else self.table
        columns = f"{self.column}, {self.further}" if self.further else self.column
        where = f" WHERE {self.where}" if self.where else ""
        return f"CREATE INDEX {'' if at_once else 'CONCURRENTLY '}ON {table} ({columns}){where};"

    def is_one(self, predicate: str | None) -> bool:
        """Whether an index that begins with the column serves as this one.

        :param predicate: of its rows, as PostgreSQL prints it; None: it has all
        """
        if predicate is None:
            return self.where in ("", f"{self.column} IS NOT NULL")
        return predicate in (self.where, f"({self.where})")


COMMENTS_BY_USER = Index("comments", "user_id")
PINS_BY_OWNER = Index("tracks", "owner_id", where="pinned_comment_id IS NOT NULL")
EVENTS_BY_REFERRER = Index("user_events", "referrer", where="referrer IS NOT NULL")

# Serves for what PINS_BY_OWNER does, if somebody has made it.
PINS = Index("tracks", "pinned_comment_id", where="pinned_comment_id IS NOT NULL")

HELPFUL_INDEXES = (COMMENTS_BY_USER, PINS_BY_OWNER, EVENTS_BY_REFERRER)
"""Those that the application lacks, and that are used where somebody creates them."""


def _by_clock(table: Table) -> Index:
    assert table.clock is not None, f"table {table.name} has no column that grows"  # noqa: S101 - a mistake of ours
    return Index(table.name, table.checked, further=table.clock) if table.checked else Index(table.name, table.clock)


NEEDED_INDEXES = (
    # events is small, and production has no such index on it.
    *(_by_clock(table) for table in TABLES.values() if table.clock and table.name != "events"),
    Index("blocks", "number"),
    Index("users", "user_id"),
    Index("follows", "follower_user_id", further="followee_user_id"),
    Index("saves", "user_id", further="save_type, save_item_id, is_delete"),
    Index("saves", "save_item_id", further="save_type, user_id, is_delete"),
    Index("reposts", "user_id", further="repost_type, repost_item_id, created_at, is_delete"),
    Index("reposts", "repost_item_id", further="repost_type, user_id, is_delete"),
    Index("tracks", "track_id"),
    Index("tracks", "owner_id"),
    Index("playlists", "playlist_id"),
    Index("playlists", "playlist_owner_id"),
    Index("comments", "comment_id"),
    Index("remixes", "child_track_id", further="parent_track_id"),
    Index("user_events", "user_id"),
    Index("sol_purchases", "buyer_user_id", further="is_valid"),
    Index("sol_purchases", "content_id", further="content_type, access_type, is_valid"),
    Index("plays", "user_id", where="user_id IS NOT NULL", further="play_item_id, created_at"),
    Index("plays", "created_at"),
    Index("aggregate_monthly_plays", "play_item_id"),
    Index("aggregate_user", "user_id"),
    Index("track_trending_scores", "type", further="version, time_range, score DESC, track_id"),
    Index("playlist_trending_scores", "type", further="version, time_range, playlist_id, score DESC"),
    Index("user_challenges", "challenge_id"),
    Index("challenge_disbursements", "challenge_id", further="specifier"),
    Index("sol_reward_disbursements", "challenge_id", further="specifier"),
)
"""Those that production has, and without which challenges read whole tables."""


@dataclass(frozen=True)
class Source:
    """How a changed row of a table leads to the users whom it affects, or to the keys of the rows (see `Rule.key`).

    :ivar table: name of the table; it has a clock, and a row of it is called `changed`
    :ivar user: SQL expression for the affected user's id, or the row's key
    :ivar join: joins that the expression needs; OFFSET 0 in them keeps the planner from joining whole tables
    :ivar index: without it the source is not followed, and what it would have told of is left to the sweep
    """

    table: str
    user: str
    join: str = ""
    index: Index | None = None

    @property
    def clock(self) -> str:
        """The column that grows."""
        clock = TABLES[self.table].clock
        assert clock is not None, f"table {self.table} has no column that grows"  # noqa: S101 - a mistake of ours
        return clock

    @cached_property
    def reads(self) -> Reads:
        """The columns that finding the users takes."""
        clock = frozenset(filter(None, (self.clock, TABLES[self.table].checked)))
        return merged([{self.table: clock}, columns_read(self.user, self.join, changed=self.table)])


def _verified_owner(named: str) -> str:
    """SQL of a join with `owner`, whoever of those named is verified."""
    return f"""
            CROSS JOIN LATERAL (
                SELECT users.user_id
                FROM discovery.users
                WHERE users.user_id = {named}.owner_id
                    AND users.is_verified
                OFFSET 0
            ) AS owner"""


USERS = Source("users", user="changed.user_id")
FOLLOWERS = Source("follows", user="changed.follower_user_id")
SAVERS = Source("saves", user="changed.user_id")
REPOSTERS = Source("reposts", user="changed.user_id")
LISTENERS = Source("plays", user="changed.user_id")

# A track or playlist that changes hands affects the owner that it has now and those of its other versions.
TRACK_OWNERS = Source(
    "tracks",
    user="version.owner_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT tracks.owner_id
                FROM discovery.tracks
                WHERE tracks.track_id = changed.track_id
                OFFSET 0
            ) AS version""",
)
PLAYLIST_OWNERS = Source(
    "playlists",
    user="version.playlist_owner_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT playlists.playlist_owner_id
                FROM discovery.playlists
                WHERE playlists.playlist_id = changed.playlist_id
                OFFSET 0
            ) AS version""",
)

# A purchase affects who buys, and the owners of what is bought.
BUYERS = Source("sol_purchases", user="changed.buyer_user_id")
SELLERS = Source(
    "sol_purchases",
    user="seller.user_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT owner.user_id
                FROM (
                    SELECT tracks.owner_id AS user_id
                    FROM discovery.tracks
                    WHERE tracks.track_id = changed.content_id
                        AND tracks.is_current
                        AND changed.content_type = 'track'
                    UNION ALL
                    SELECT playlists.playlist_owner_id
                    FROM discovery.playlists
                    WHERE playlists.playlist_id = changed.content_id
                        AND playlists.is_current
                        AND changed.content_type IN ('album', 'playlist')
                ) AS owner
                OFFSET 0
            ) AS seller""",
)

# Monthly counts have no column that only grows; they change in the transaction that inserts a play.
VERIFIED_OWNERS_OF_PLAYED = Source(
    "plays",
    user="owner.user_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT tracks.owner_id
                FROM discovery.tracks
                WHERE tracks.track_id = changed.play_item_id
                OFFSET 0
            ) AS played"""
    + _verified_owner("played"),
)

COMMENTS = Source("comments", user="changed.comment_id")

# Whoever is active again has his comments examined, where an index leads to them.
COMMENTS_OF_USERS = Source(
    "users",
    user="comment.comment_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT comments.comment_id
                FROM discovery.comments
                WHERE comments.user_id = changed.user_id
                OFFSET 0
            ) AS comment""",
    index=COMMENTS_BY_USER,
)

NEWCOMERS = Source("user_events", user="changed.user_id")

# A comment may come after it was pinned, or come back.
VERIFIED_OWNERS_OF_COMMENTED = Source(
    "comments",
    user="owner.user_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT tracks.owner_id
                FROM discovery.tracks
                WHERE tracks.track_id = changed.entity_id
                    AND tracks.pinned_comment_id = changed.comment_id
                OFFSET 0
            ) AS pinned"""
    + _verified_owner("pinned"),
)

HOSTS = Source("events", user="changed.user_id")

# A remix affects who owns what it was made of: when it changes, and when its artist does.
PARENT_OWNERS = Source(
    "tracks",
    user="parent.owner_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT tracks.owner_id
                FROM discovery.remixes
                INNER JOIN discovery.tracks
                    ON remixes.parent_track_id = tracks.track_id
                WHERE remixes.child_track_id = changed.track_id
                OFFSET 0
            ) AS parent""",
)
COSIGNERS_OF_CHANGED = Source(
    "users",
    user="affected.user_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT either.user_id
                FROM (
                    SELECT parent.owner_id AS user_id
                    FROM discovery.tracks AS remix
                    INNER JOIN discovery.remixes
                        ON remix.track_id = remixes.child_track_id
                    INNER JOIN discovery.tracks AS parent
                        ON remixes.parent_track_id = parent.track_id
                    WHERE remix.owner_id = changed.user_id
                    UNION ALL
                    SELECT changed.user_id
                    WHERE changed.is_verified
                ) AS either
                OFFSET 0
            ) AS affected""",
)

_LITERAL = re.compile(r"'(?:[^']|'')*'")
# Without \b in front, which would have each word looked at: a tick has a session of its own, and asks for all there is.
_TABLE = re.compile(r"discovery\.(\w+)(?:\s+AS\s+(\w+))?")
_TARGET = re.compile(r"INSERT INTO discovery\.(\w+)(?:\s+AS\s+\w+)?\s*\(([^)]*)\)")
_COLUMN = re.compile(r"\b(\w+)\.(\w+)")


def columns_read(*texts: str, **aliases: str) -> Reads:
    """The tables and columns that pieces of SQL name.

    SQL of this package qualifies every column, by its table's name or alias, or names it as a column to insert.

    :param aliases: names of tables that the pieces take for granted, such as eligible="users"
    :raises KeyError: if a table has no such column in its declaration
    """
    found: dict[str, set[str]] = {}
    for text in texts:
        sql = _LITERAL.sub("''", text)
        names = dict(aliases)
        for table, alias in _TABLE.findall(sql):
            names |= {table: table, alias or table: table}
            found.setdefault(table, set())
        for table, columns in _TARGET.findall(sql):
            found[table].update(columns.replace(",", " ").split())
        for name, column in _COLUMN.findall(sql):
            if name in names:
                found.setdefault(names[name], set()).add(column)
    for table, columns in found.items():
        if missing := columns - TABLES[table].columns.keys():
            raise KeyError(f"{table} is declared without {', '.join(sorted(missing))} in sources.py")
    return {table: frozenset(columns) for table, columns in found.items()}


def merged(reads: Iterable[Reads]) -> Reads:
    """All of these together."""
    together: dict[str, frozenset[str]] = {}
    for one in reads:
        for table, columns in one.items():
            together[table] = together.get(table, frozenset()) | columns
    return together
