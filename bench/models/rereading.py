"""Model (a): a job outside the database that re-reads every source at each tick and upserts row by row.

For each challenge it reads the progress of all users in one query, then sends one upsert a row over its connection, in
one transaction a challenge. An idle tick therefore costs as much as the first. What would take too long is measured on
a sample of the rows, drawn at random, and extrapolated; the reading is always done in full.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bench.database import Subject
from bench.measuring import Connection

SAMPLE_ROWS = 10_000
"""Rows of each challenge that are upserted; with no more than that, nothing is extrapolated."""

_ELIGIBLE = """
    users.is_current
    AND NOT users.is_deactivated
"""

_VERIFIED_SUMS = f"""
    SELECT
        users.user_id,
        sum(monthly.count) AS progress
    FROM users
    INNER JOIN tracks
        ON tracks.owner_id = users.user_id
        AND tracks.is_current
        AND NOT tracks.is_delete
    INNER JOIN aggregate_monthly_plays AS monthly
        ON monthly.play_item_id = tracks.track_id
        AND monthly.timestamp >= DATE '2025-01-01'
    WHERE {_ELIGIBLE}
        AND users.is_verified
    GROUP BY users.user_id
"""


def _after(previous: str) -> str:
    return f"""
        {_VERIFIED_SUMS}
        HAVING users.user_id IN (
            SELECT user_id
            FROM user_challenges
            WHERE challenge_id = '{previous}'
                AND is_complete
        )
    """


_STEPS = """
    (bio IS NOT NULL)::integer
    + (name IS NOT NULL)::integer
    + (coalesce(profile_picture, profile_picture_sizes) IS NOT NULL)::integer
    + (coalesce(cover_photo, cover_photo_sizes) IS NOT NULL)::integer
    + (coalesce(followed.count, 0) >= 5)::integer
    + (saved.user_id IS NOT NULL)::integer
    + (reposted.user_id IS NOT NULL)::integer
"""

# The progress of every user: user_id, progress, and for p the seven steps.
READS: Mapping[str, str] = MappingProxyType(
    {
        "u": f"""
            SELECT
                users.user_id,
                count(*) AS progress
            FROM tracks
            INNER JOIN users
                ON users.user_id = tracks.owner_id
                AND {_ELIGIBLE}
            WHERE tracks.is_current
                AND NOT tracks.is_delete
                AND NOT tracks.is_unlisted
                AND tracks.stem_of IS NULL
                AND tracks.blocknumber >= (SELECT starting_block FROM challenges WHERE id = 'u')
            GROUP BY users.user_id
        """,
        "fp": f"""
            SELECT DISTINCT
                users.user_id,
                1 AS progress
            FROM playlists
            INNER JOIN users
                ON users.user_id = playlists.playlist_owner_id
                AND {_ELIGIBLE}
            WHERE playlists.is_current
                AND NOT playlists.is_delete
                AND playlists.blocknumber >= (SELECT starting_block FROM challenges WHERE id = 'fp')
        """,
        "p": f"""
            SELECT
                users.user_id,
                {_STEPS} AS progress,
                bio IS NOT NULL,
                name IS NOT NULL,
                coalesce(profile_picture, profile_picture_sizes) IS NOT NULL,
                coalesce(cover_photo, cover_photo_sizes) IS NOT NULL,
                coalesce(followed.count, 0) >= 5,
                saved.user_id IS NOT NULL,
                reposted.user_id IS NOT NULL
            FROM users
            LEFT JOIN (
                SELECT follower_user_id AS user_id, count(*) AS count
                FROM follows
                WHERE is_current AND NOT is_delete
                GROUP BY follower_user_id
            ) AS followed USING (user_id)
            LEFT JOIN (SELECT DISTINCT user_id FROM saves WHERE is_current AND NOT is_delete) AS saved
                USING (user_id)
            LEFT JOIN (SELECT DISTINCT user_id FROM reposts WHERE is_current AND NOT is_delete) AS reposted
                USING (user_id)
            WHERE {_ELIGIBLE}
                AND users.handle_lc IS NOT NULL
                AND {_STEPS} > 0
        """,
        "v": f"""
            SELECT
                users.user_id,
                1 AS progress
            FROM users
            WHERE {_ELIGIBLE}
                AND users.is_verified
        """,
        "p1": _VERIFIED_SUMS,
        "p2": _after("p1"),
        "p3": _after("p2"),
    }
)

SUFFIXES: Mapping[str, str] = MappingProxyType({"p1": ":250", "p2": ":1000", "p3": ":10000"})

# What is complete stays so; the row is written in any case.
UPSERT = """
    INSERT INTO user_challenges AS existing (
        challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount, completed_at
    )
    VALUES (%s, %s, %s, %s, %s, %s, %s, CASE WHEN %s THEN now() AT TIME ZONE 'UTC' END)
    ON CONFLICT (challenge_id, specifier) DO UPDATE SET
        is_complete = existing.is_complete OR excluded.is_complete,
        current_step_count = excluded.current_step_count,
        completed_blocknumber = coalesce(existing.completed_blocknumber, excluded.completed_blocknumber),
        completed_at = coalesce(existing.completed_at, excluded.completed_at)
"""

_UPSERT_COMPLETION = """
    INSERT INTO challenge_profile_completion VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (user_id) DO UPDATE SET
        profile_description = excluded.profile_description,
        profile_name = excluded.profile_name,
        profile_picture = excluded.profile_picture,
        profile_cover_photo = excluded.profile_cover_photo,
        follows = excluded.follows,
        favorites = excluded.favorites,
        reposts = excluded.reposts
"""


@dataclass
class RereadingTick:
    """One tick of the model.

    reading: milliseconds for reading, by challenge.
    upserting: milliseconds for the upserts, extrapolated to all rows.
    rows: rows upserted (for p, in two tables), had it upserted all.
    sampled: rows that really were.
    """

    reading: dict[str, float] = field(default_factory=dict)
    upserting: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    sampled: int = 0

    @property
    def milliseconds(self) -> float:
        """The whole tick."""
        return sum(self.reading.values()) + sum(self.upserting.values())

    @property
    def is_extrapolated(self) -> bool:
        """Whether only a sample was upserted."""
        return self.sampled < self.rows


def rereading_tick(subject: Subject) -> RereadingTick:
    """Runs one tick; what it upserts stays."""
    tick = RereadingTick()
    with subject.connect() as connection:
        catalog = {
            challenge: (step_count or 1, int(amount))
            for challenge, step_count, amount in connection.execute("SELECT id, step_count, amount FROM challenges")
        }
        (block,) = connection.execute("SELECT max(number) FROM blocks").fetchone() or (0,)
        for challenge, statement in READS.items():
            began = time.perf_counter()
            rows, sample = _read(connection, statement)
            read = time.perf_counter()
            with connection.transaction():
                for row in sample:
                    _upsert(connection, challenge, row, *catalog[challenge], block)
            upserted = time.perf_counter()
            tables = 2 if challenge == "p" else 1
            tick.reading[challenge] = (read - began) * 1000
            tick.upserting[challenge] = (upserted - read) * 1000 * rows / max(len(sample), 1)
            tick.rows += rows * tables
            tick.sampled += len(sample) * tables
    return tick


def _read(connection: Connection, statement: str) -> tuple[int, list[tuple[Any, ...]]]:
    """Reads everything; returns the number of rows, and some of them, each with the same chance."""
    dice = random.Random(1)
    sample: list[tuple[Any, ...]] = []
    rows = 0
    with connection.transaction(), connection.cursor(name="reading") as cursor:
        cursor.itersize = 10_000
        cursor.execute(statement)
        for row in cursor:
            rows += 1
            if len(sample) < SAMPLE_ROWS:
                sample.append(row)
            elif (place := dice.randrange(rows)) < SAMPLE_ROWS:
                sample[place] = row
    return rows, sample


def _upsert(connection: Connection, challenge: str, row: tuple[Any, ...], target: int, amount: int, block: int) -> None:
    user_id, progress, *steps = row
    if steps:
        connection.execute(_UPSERT_COMPLETION, [user_id, *steps])
    is_complete = progress >= target
    specifier = f"{user_id:x}{SUFFIXES.get(challenge, '')}"
    connection.execute(
        UPSERT,
        [
            challenge,
            user_id,
            specifier,
            is_complete,
            min(progress, target),
            block if is_complete else None,
            amount,
            is_complete,
        ],
    )
