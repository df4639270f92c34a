"""The feed of changed rows: which users are affected by what was committed since the last run.

A checkpoint keeps, for each source, a position in the column that grows, and for all of them the horizon: the
oldest transaction that was still running when the position was read. Whatever was not visible then has a row
version of that transaction or a later one, so the next run takes just those versions, from a window that reaches
back to where the position was before that transaction began. In whatever order transactions commit, none is missed;
and where nothing happened, nothing is found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from audius_challenges.database import Database

# The position is not the greatest value but the one this many rows below it: one absurd number must not blind the
# feed, and rows whose number was taken some time before their transaction began are still inside the window.
OUTLIERS = 500

# Blocks or ids by which the window reaches back further, for the same reason.
SLACK = 100

# A window is kept for every run since the oldest open transaction began; beyond this many every other one is dropped,
# which only widens the window.
HISTORY = 32

# Beyond this age (transactions) a horizon is renewed though nothing was found: row versions carry 32 bits of their
# transaction's number, which can be told from older ones up to an age of 2^31.
RENEWAL_AGE = 1 << 24
TRUSTED_AGE = 1 << 31

UNTRUSTED = -1

# SQL: whether a row version is of the horizon's transaction or a later one (its xmin has 32 bits of it).
IS_RECENT = "((changed.xmin::text::bigint - :horizon) & 4294967295) < 2147483648"

_START_OF_TIME = -(1 << 62)


@dataclass(frozen=True)
class Source:
    """A source table, and how a row of it leads to the users it affects.

    :ivar table: name of the table; a row of it is called `changed`
    :ivar column: the column that grows: `blocknumber`, or `id` of plays
    :ivar user: SQL expression for the affected user's id
    :ivar join: joins that the expression needs
    """

    table: str
    column: str
    user: str
    join: str = ""


@dataclass
class Seen:
    """What the positions were when all transactions before `next_xid` had begun."""

    next_xid: int
    positions: list[int | None]


@dataclass
class Checkpoint:
    """Up to where the sources of one processor have been read.

    :ivar horizon: the oldest transaction that was still running then
    :ivar history: positions then and before, oldest first, back to where that transaction began
    :ivar extra: what else a processor wants to keep with it
    """

    horizon: int
    history: list[Seen]
    extra: dict[str, Any] = field(default_factory=dict)

    def window(self) -> list[int]:
        """For each source, from where on there can be rows that were not visible then."""
        began_before = [seen for seen in self.history if seen.next_xid <= self.horizon]
        seen = began_before[-1] if began_before else self.history[0]
        return [_START_OF_TIME if position is None else position - SLACK for position in seen.positions]

    def is_trusted(self, next_xid: int) -> bool:
        """Whether the horizon can be a transaction of this cluster, and near enough to tell from older ones."""
        return self.horizon != UNTRUSTED and 0 <= next_xid - self.horizon < TRUSTED_AGE

    def is_news(self, kept: Checkpoint) -> bool:
        """Whether this one is worth keeping instead of the one that is kept: an idle run writes none."""
        return (
            self.history[-1].positions != kept.history[-1].positions
            or self.horizon - kept.horizon > RENEWAL_AGE
            or self.extra != kept.extra
        )

    def advanced(self, horizon: int, now: Seen) -> Checkpoint:
        """The checkpoint after a run that saw these positions."""
        history = list(self.history)
        if history[-1].positions != now.positions:
            history.append(now)
        while len(history) > 1 and history[1].next_xid <= horizon:
            del history[0]
        if len(history) > HISTORY:
            history = [history[0], *history[1:-1:2], history[-1]]
        return Checkpoint(horizon, history, dict(self.extra))


@dataclass(frozen=True)
class Changes:
    """What the feed found.

    :ivar users: ids of the users affected, at most one more than was asked for
    :ivar checkpoint: the checkpoint to keep once they are reconciled
    :ivar is_news: whether it is worth keeping: an idle run writes no checkpoint
    """

    users: list[int]
    checkpoint: Checkpoint
    is_news: bool


def take_checkpoint(db: Database, sources: Sequence[Source]) -> Checkpoint:
    """A checkpoint at the present: what is visible now counts as read."""
    row = db.row(_detection(sources, with_users=False))
    return Checkpoint(row["horizon"], [_seen(row, sources)])


def find_changes(db: Database, sources: Sequence[Source], checkpoint: Checkpoint, limit: int) -> Changes:
    """The users affected by rows that were not visible at the checkpoint.

    :param limit: beyond this many users, just one more is returned
    """
    row = db.row(
        _detection(sources, with_users=True),
        horizon=checkpoint.horizon,
        windows=checkpoint.window(),
        limit=limit + 1,
    )
    advanced = checkpoint.advanced(row["horizon"], _seen(row, sources))
    return Changes(row["users"], advanced, is_news=bool(row["users"]) or advanced.is_news(checkpoint))


def _seen(row: dict[str, Any], sources: Sequence[Source]) -> Seen:
    return Seen(row["next_xid"], [row[f"position_{number}"] for number in range(len(sources))])


def _detection(sources: Sequence[Source], *, with_users: bool) -> str:
    """One statement, so one snapshot, for the horizon, the positions and the affected users."""
    affected = "\n            UNION ALL\n".join(
        f"""
            SELECT {source.user} AS user_id
            FROM discovery.{source.table} AS changed
            {source.join}
            WHERE changed.{source.column} >= :windows[{number + 1}]
                AND {IS_RECENT}"""
        for number, source in enumerate(sources)
    )
    users = f"""
        ARRAY(
            SELECT DISTINCT affected.user_id
            FROM ({affected}
            ) AS affected
            WHERE affected.user_id IS NOT NULL
            LIMIT :limit
        ) AS users,"""
    positions = ",".join(
        f"""
        (
            SELECT {source.table}.{source.column}
            FROM discovery.{source.table}
            WHERE {source.table}.{source.column} IS NOT NULL
            ORDER BY {source.table}.{source.column} DESC
            OFFSET {OUTLIERS}
            LIMIT 1
        ) AS position_{number}"""
        for number, source in enumerate(sources)
    )
    return f"""
    SELECT
        pg_snapshot_xmin(snapshot)::text::bigint AS horizon,
        pg_snapshot_xmax(snapshot)::text::bigint AS next_xid,{users if with_users else ""}{positions}
    FROM pg_current_snapshot() AS snapshot
    """


_LOAD = """
    SELECT
        horizon,
        progress
    FROM audius_challenges.checkpoint
    WHERE challenge_id = :challenge_id
"""

_SAVE = """
    INSERT INTO audius_challenges.checkpoint (challenge_id, horizon, progress)
    VALUES (:challenge_id, :horizon, :payload)
    ON CONFLICT (challenge_id) DO UPDATE SET
        horizon = excluded.horizon,
        progress = excluded.progress
"""


def load_checkpoint(db: Database, challenge_id: str, sources: Sequence[Source]) -> Checkpoint | None:
    """The checkpoint of a processor; None if there is none, or it is of other sources than these."""
    for row in db.rows(_LOAD, challenge_id=challenge_id):
        progress = json.loads(row["progress"])
        if progress.pop("sources") == [source.table for source in sources]:
            history = [Seen(*entry) for entry in progress.pop("history")]
            return Checkpoint(row["horizon"], history, progress)
    return None


def save_checkpoint(db: Database, challenge_id: str, sources: Sequence[Source], checkpoint: Checkpoint) -> None:
    """Keep the checkpoint of a processor."""
    progress = {
        "sources": [source.table for source in sources],
        "history": [[seen.next_xid, seen.positions] for seen in checkpoint.history],
        **checkpoint.extra,
    }
    db.rows(_SAVE, challenge_id=challenge_id, horizon=checkpoint.horizon, payload=json.dumps(progress))


def distrust_checkpoints(db: Database) -> None:
    """The transaction ids of all checkpoints are those of another cluster, or of another table's rows."""
    db.rows("UPDATE audius_challenges.checkpoint SET horizon = :horizon", horizon=UNTRUSTED)
