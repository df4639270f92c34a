"""Model (b): the same job after some tuning: checkpoints, batches of 5,000 source rows, set-based upserts.

For u, fp and p it reads what lies above the highest block number of each source that it has seen (and so loses whatever
commits late), and reconciles the users of a batch by one upsert, which writes every row, changed or not. For v and
p1 to p3, whose sources have no column that grows, it reads all verified users again at each tick.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bench.database import Subject
from bench.measuring import Connection
from bench.models.rereading import READS, SUFFIXES

BATCH_ROWS = 5_000

# The challenge that a source belongs to, and the user that a row of it is of.
_SOURCES = (
    ("u", "tracks", "owner_id"),
    ("fp", "playlists", "playlist_owner_id"),
    ("p", "users", "user_id"),
    ("p", "follows", "follower_user_id"),
    ("p", "saves", "user_id"),
    ("p", "reposts", "user_id"),
)

# The progress of the users of a batch, by probes.
_PROGRESS: Mapping[str, str] = MappingProxyType(
    {
        "u": """
            (
                SELECT count(*)
                FROM tracks
                WHERE owner_id = users.user_id
                    AND is_current
                    AND NOT is_delete
                    AND NOT is_unlisted
                    AND stem_of IS NULL
                    AND blocknumber >= (SELECT starting_block FROM challenges WHERE id = 'u')
            )
        """,
        "fp": """
            (
                SELECT count(*)
                FROM playlists
                WHERE playlist_owner_id = users.user_id
                    AND is_current
                    AND NOT is_delete
                    AND blocknumber >= (SELECT starting_block FROM challenges WHERE id = 'fp')
            )
        """,
        "p": """
            steps.description::integer + steps.name::integer + steps.picture::integer + steps.cover::integer
            + steps.follows::integer + steps.favorites::integer + steps.reposts::integer
        """,
    }
)

_STEPS = """
    CROSS JOIN LATERAL (
        SELECT
            users.bio IS NOT NULL AS description,
            users.name IS NOT NULL AS name,
            coalesce(users.profile_picture, users.profile_picture_sizes) IS NOT NULL AS picture,
            coalesce(users.cover_photo, users.cover_photo_sizes) IS NOT NULL AS cover,
            (
                SELECT count(*)
                FROM (
                    SELECT
                    FROM follows
                    WHERE follower_user_id = users.user_id AND is_current AND NOT is_delete
                    LIMIT 5
                ) AS followees
            ) = 5 AS follows,
            EXISTS (
                SELECT FROM saves WHERE user_id = users.user_id AND is_current AND NOT is_delete OFFSET 0
            ) AS favorites,
            EXISTS (
                SELECT FROM reposts WHERE user_id = users.user_id AND is_current AND NOT is_delete OFFSET 0
            ) AS reposts
        OFFSET 0
    ) AS steps
"""

_COMPLETION = """
    , completion AS (
        INSERT INTO challenge_profile_completion
        SELECT user_id, description, name, picture, cover, follows, favorites, reposts
        FROM counted
        WHERE progress > 0
        ON CONFLICT (user_id) DO UPDATE SET
            profile_description = excluded.profile_description,
            profile_name = excluded.profile_name,
            profile_picture = excluded.profile_picture,
            profile_cover_photo = excluded.profile_cover_photo,
            follows = excluded.follows,
            favorites = excluded.favorites,
            reposts = excluded.reposts
    )
"""


def _upsert(challenge: str, counted: str, completion: str = "") -> str:
    return f"""
        WITH counted AS MATERIALIZED (SELECT DISTINCT ON (user_id) * FROM ({counted}) AS everybody) {completion}
        INSERT INTO user_challenges AS existing (
            challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount,
            completed_at
        )
        SELECT
            id,
            user_id,
            to_hex(user_id) || '{SUFFIXES.get(challenge, "")}',
            progress >= coalesce(step_count, 1),
            least(progress, coalesce(step_count, 1)),
            CASE WHEN progress >= coalesce(step_count, 1) THEN (SELECT max(number) FROM blocks) END,
            amount::integer,
            CASE WHEN progress >= coalesce(step_count, 1) THEN now() AT TIME ZONE 'UTC' END
        FROM counted
        INNER JOIN challenges
            ON id = '{challenge}'
        WHERE progress > 0
        ORDER BY user_id
        ON CONFLICT (challenge_id, specifier) DO UPDATE SET
            is_complete = existing.is_complete OR excluded.is_complete,
            current_step_count = excluded.current_step_count,
            completed_blocknumber = coalesce(existing.completed_blocknumber, excluded.completed_blocknumber),
            completed_at = coalesce(existing.completed_at, excluded.completed_at)
    """


_BATCH_UPSERTS = {
    challenge: _upsert(
        challenge,
        f"""
        SELECT users.user_id, {progress} AS progress {", steps.*" if challenge == "p" else ""}
        FROM users {_STEPS if challenge == "p" else ""}
        WHERE users.user_id = ANY(%(users)s)
            AND users.is_current
            AND NOT users.is_deactivated
            {"AND users.handle_lc IS NOT NULL" if challenge == "p" else ""}
        """,
        _COMPLETION if challenge == "p" else "",
    )
    for challenge, progress in _PROGRESS.items()
}
_VERIFIED_UPSERTS = tuple(_upsert(challenge, READS[challenge]) for challenge in ("v", "p1", "p2", "p3"))


@dataclass
class Backlog:
    """How a source is drained: rows read so far of all that there are, and milliseconds."""

    rows: int = 0
    total: int = 0
    milliseconds: float = 0


@dataclass
class CheckpointedBuild:
    """A first build, each source for a limited time.

    milliseconds: the whole, had every source been read to its end.
    """

    sources: dict[str, Backlog] = field(default_factory=dict)
    verified: float = 0

    @property
    def milliseconds(self) -> float:
        """The whole, extrapolated where a source was not read to its end."""
        return self.verified + sum(
            backlog.milliseconds * backlog.total / max(backlog.rows, 1) for backlog in self.sources.values()
        )

    @property
    def is_extrapolated(self) -> bool:
        """Whether a source was not read to its end."""
        return any(backlog.rows < backlog.total for backlog in self.sources.values())


class CheckpointedJob:
    """The job: a session, and the highest block number that it has seen in each source."""

    def __init__(self, subject: Subject) -> None:
        self.connection: Connection = subject.connect()
        self._seen = dict.fromkeys((table for _, table, _ in _SOURCES), -1)

    def build(self, seconds: float) -> CheckpointedBuild:
        """A first build, which gives up on a source after so many seconds."""
        build = CheckpointedBuild()
        for challenge, table, user in _SOURCES:
            backlog = Backlog(total=self._count(table))
            began = time.perf_counter()
            while rows := self._batch(challenge, table, user):
                backlog.rows += rows
                if time.perf_counter() - began > seconds:
                    break
            else:
                backlog.rows = backlog.total
            backlog.milliseconds = (time.perf_counter() - began) * 1000
            build.sources[table] = backlog
        began = time.perf_counter()
        self._verified()
        build.verified = (time.perf_counter() - began) * 1000
        return build

    def catch_up(self) -> None:
        """Counts everything that is there as seen."""
        for table in self._seen:
            row = self.connection.execute(f"SELECT max(blocknumber) FROM {table}").fetchone()
            self._seen[table] = row[0] if row else -1

    def tick(self) -> None:
        """Reads what is new in each source, batch by batch, and all verified users."""
        for source in _SOURCES:
            while self._batch(*source) >= BATCH_ROWS:
                pass
        self._verified()

    def close(self) -> None:
        """Ends the session."""
        self.connection.close()

    def _batch(self, challenge: str, table: str, user: str) -> int:
        """One batch in a transaction of its own; returns how many source rows it read."""
        with self.connection.transaction():
            row = self.connection.execute(
                f"""
                SELECT
                    count(*),
                    max(blocknumber),
                    array_agg(DISTINCT user_id)
                FROM (
                    SELECT blocknumber, {user} AS user_id
                    FROM {table}
                    WHERE blocknumber > %s
                    ORDER BY blocknumber
                    FETCH FIRST {BATCH_ROWS} ROWS WITH TIES
                ) AS batch
                """,
                [self._seen[table]],
            ).fetchone()
            if row is None or not row[0]:
                return 0
            self.connection.execute(_BATCH_UPSERTS[challenge], {"users": row[2]})
            self._seen[table] = row[1]
            return int(row[0])

    def _verified(self) -> None:
        for statement in _VERIFIED_UPSERTS:
            self.connection.execute(statement)

    def _count(self, table: str) -> int:
        row = self.connection.execute(f"SELECT count(*) FROM {table} WHERE blocknumber IS NOT NULL").fetchone()
        assert row is not None
        return int(row[0])
