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
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from audius_challenges.database import Database

# The position is not the greatest value but the one this many rows below it: one absurd number must not blind the
# feed, and rows whose number was taken some time before their transaction began are still inside the window.
OUTLIERS = 500

# Blocks or ids by which the window reaches back further, for the same reason.
SLACK = 100

# Positions are kept of every run since the oldest open transaction began; beyond this many, two and two are merged into
# the lower ones, which only widens the window.
HISTORY = 32

# So many of the latest blocks may be absurd ones, each with any number of rows.
LATEST_BLOCKS = 20

# Of so many of the latest plays, by the time at which they were played, LOW_PLAYS may have odd low ids; as long as the
# others are not all odd high ones, the position is not.
LATEST_PLAYS = 500
LOW_PLAYS = 20

# Beyond this age (transactions) a horizon is renewed though nothing was found: row versions carry 32 bits of their
# transaction's number, which can be told from older ones up to an age of 2^31.
RENEWAL_AGE = 1 << 24
TRUSTED_AGE = 1 << 31

UNTRUSTED = -1

BEFORE_THE_FIRST = 0


def is_not_before(transaction: str) -> str:
    """SQL of whether a row version is of this transaction or a later one (its xmin has 32 bits of it)."""
    return f"((changed.xmin::text::bigint - {transaction}) & 4294967295) < 2147483648"


IS_RECENT = is_not_before(":horizon")

START_OF_TIME = -(1 << 62)


@dataclass(frozen=True)
class Source:
    """A source table, and how a row of it leads to the users it affects.

    :ivar table: name of the table; a row of it is called `changed`
    :ivar column: the column that grows: `blocknumber`, or `id` of plays
    :ivar user: SQL expression for the affected user's id
    :ivar join: joins that the expression needs; OFFSET 0 in them keeps the planner from joining whole tables
    """

    table: str
    column: str
    user: str
    join: str = ""


@dataclass(frozen=True)
class Present:
    """What the sources look like in one snapshot.

    :ivar horizon: the oldest transaction that is still running
    :ivar next_xid: one more than the latest transaction that has ended
    :ivar positions: of each source; None for one with few rows
    """

    horizon: int
    next_xid: int
    positions: list[int | None]


@dataclass
class Seen:
    """Positions at an earlier run.

    :ivar positions: of each source
    :ivar before: every transaction from this one on began after the positions were read; None: not known yet
    """

    positions: list[int | None]
    before: int | None = None


@dataclass
class Checkpoint:
    """Up to where the sources of one processor have been read.

    :ivar horizon: the oldest transaction that was still running then
    :ivar history: positions then and before, oldest first, back to where that transaction had not begun yet
    :ivar is_settled: whether the transaction that wrote the checkpoint has ended
    :ivar extra: what else a processor wants to keep with it
    """

    horizon: int
    history: list[Seen]
    is_settled: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def window(self, positions: list[int | None] | None = None) -> list[int]:
        """For each source, from where on there can be rows that were not visible then.

        :param positions: those of the present: they fall when a block is reverted
        """
        return _lowest([seen.positions for seen in self.history] + ([positions] if positions else []))

    def reach(self, positions: list[int | None] | None = None) -> list[int]:
        """The same without what was open when the first checkpoint was taken: rows of that can be anywhere."""
        known = [seen.positions for seen in self.history if seen.before != BEFORE_THE_FIRST]
        return _lowest(known + ([positions] if positions else []))

    @property
    def has_open_transactions(self) -> bool:
        """Whether a transaction may still be open that was open when the first checkpoint was taken."""
        return self.history[0].before == BEFORE_THE_FIRST

    def is_trusted(self, present: Present) -> bool:
        """Whether the horizon can be a transaction of this cluster, and near enough to tell from older ones."""
        return self.horizon != UNTRUSTED and 0 <= present.next_xid - self.horizon < TRUSTED_AGE

    def is_news(self, kept: Checkpoint) -> bool:
        """Whether this one is worth keeping instead of the one that is kept: an idle run writes none."""
        return (
            self.history[-1].positions != kept.history[-1].positions
            or self.horizon - kept.horizon > RENEWAL_AGE
            or self.has_open_transactions != kept.has_open_transactions
            or self.extra != kept.extra
        )

    def advanced(self, present: Present) -> Checkpoint:
        """The checkpoint after a run that has read up to the present."""
        # The run that wrote the last entry had a transaction id assigned after it had read the positions. That run has
        # ended, so whatever is not below today's next_xid began after it. (Its own next_xid would not do: a higher
        # transaction may already have been running unseen then, since none had ended.)
        settled = present.next_xid if self.is_settled else None
        history = [Seen(seen.positions, settled if seen.before is None else seen.before) for seen in self.history]
        if history[-1].positions != present.positions:
            history.append(Seen(present.positions))
        while len(history) > 1 and history[1].before is not None and history[1].before <= present.horizon:
            del history[0]
        if len(history) > HISTORY:
            first = int(self.has_open_transactions)
            history = history[:first] + [_merged(history[at : at + 2]) for at in range(first, len(history), 2)]
        return Checkpoint(present.horizon, history, extra=deepcopy(self.extra))


def read_present(db: Database, sources: Sequence[Source]) -> Present:
    """The horizon and the positions, in one statement and so one snapshot; to be read before the rows are."""
    positions = "".join(
        f""",
        (
            SELECT {_sane(source)}
            FROM discovery.{source.table}
            WHERE {source.table}.{source.column} IS NOT NULL
            ORDER BY {source.table}.{source.column} DESC
            OFFSET {OUTLIERS}
            LIMIT 1
        ) AS position_{number}"""
        for number, source in enumerate(sources)
    )
    row = db.row(f"""
    SELECT
        pg_snapshot_xmin(snapshot)::text::bigint AS horizon,
        pg_snapshot_xmax(snapshot)::text::bigint AS next_xid{positions}
    FROM pg_current_snapshot() AS snapshot
    """)
    return Present(row.pop("horizon"), row.pop("next_xid"), list(row.values()))


def first_checkpoint(present: Present, *, with_open_transactions: bool = False) -> Checkpoint:
    """A checkpoint at the present: what is visible now counts as read.

    :param with_open_transactions: whether the first run after it looks everywhere for rows of transactions that were
        open now; a processor with a sweep need not
    """
    open_transactions = [Seen([None] * len(present.positions), BEFORE_THE_FIRST)] if with_open_transactions else []
    return Checkpoint(present.horizon, [*open_transactions, Seen(present.positions)])


def changed_users(
    db: Database, sources: Sequence[Source], checkpoint: Checkpoint, present: Present, limit: int
) -> list[int]:
    """The ids of the users affected by rows that were not visible at the checkpoint.

    :param present: what was read before
    :param limit: beyond this many users, just one more is returned
    """
    affected = "\n            UNION ALL\n".join(
        f"""
            SELECT {source.user} AS user_id
            FROM discovery.{source.table} AS changed
            {source.join}
            WHERE changed.{source.column} >= :windows[{number + 1}]
                AND {IS_RECENT}"""
        for number, source in enumerate(sources)
    )
    users: list[int] = db.value(
        f"""
    SELECT ARRAY(
        SELECT DISTINCT affected.user_id
        FROM ({affected}
        ) AS affected
        WHERE affected.user_id IS NOT NULL
        LIMIT :limit
    ) AS users
    """,
        horizon=checkpoint.horizon,
        windows=checkpoint.window(present.positions),
        limit=limit + 1,
    )
    return users


_LATE_BLOCK = f"""
                SELECT blocks.number
                FROM discovery.blocks
                WHERE blocks.number IS NOT NULL
                ORDER BY blocks.number DESC
                OFFSET {LATEST_BLOCKS}
                LIMIT 1"""

_LATE_PLAY = f"""
                SELECT late.id
                FROM (
                    SELECT plays.id
                    FROM discovery.plays
                    ORDER BY plays.created_at DESC
                    LIMIT {LATEST_PLAYS}
                ) AS late
                ORDER BY late.id
                OFFSET {LOW_PLAYS}
                LIMIT 1"""


def _sane(source: Source) -> str:
    """SQL of the source's column, or of what late blocks or late plays have in it if that is lower."""
    column = f"{source.table}.{source.column}"
    if source.column == "blocknumber":
        return f"least({column}, ({_LATE_BLOCK}))"
    return f"least({column}, ({_LATE_PLAY}))"


def _merged(history: list[Seen]) -> Seen:
    """One entry that stands for these: as early as the first, as low as the lowest."""
    positions = [
        None if None in source else min(each for each in source if each is not None)
        for source in zip(*(seen.positions for seen in history), strict=True)
    ]
    return Seen(positions, history[0].before)


def _lowest(positions: list[list[int | None]]) -> list[int]:
    return [
        min(START_OF_TIME if position is None else position - SLACK for position in source)
        for source in zip(*positions, strict=True)
    ]


_LOAD = """
    SELECT
        horizon,
        written_by IS DISTINCT FROM pg_current_xact_id_if_assigned() AS is_settled,
        progress
    FROM audius_challenges.checkpoint
    WHERE challenge_id = :challenge_id
"""

_SAVE = """
    INSERT INTO audius_challenges.checkpoint (challenge_id, horizon, written_by, progress)
    VALUES (:challenge_id, :horizon, pg_current_xact_id(), :payload)
    ON CONFLICT (challenge_id) DO UPDATE SET
        horizon = excluded.horizon,
        written_by = excluded.written_by,
        progress = excluded.progress
"""


def load_checkpoint(db: Database, challenge_id: str, sources: Sequence[Source]) -> Checkpoint | None:
    """The checkpoint of a processor; None if there is none, or it is of other sources than these."""
    for row in db.rows(_LOAD, challenge_id=challenge_id):
        progress = json.loads(row["progress"])
        if progress.pop("sources") == [source.table for source in sources]:
            history = [Seen(positions, before) for before, positions in progress.pop("history")]
            return Checkpoint(row["horizon"], history, row["is_settled"], progress)
    return None


def save_checkpoint(db: Database, challenge_id: str, sources: Sequence[Source], checkpoint: Checkpoint) -> None:
    """Keep the checkpoint of a processor; it is committed with what was written."""
    progress = {
        "sources": [source.table for source in sources],
        "history": [[seen.before, seen.positions] for seen in checkpoint.history],
        **checkpoint.extra,
    }
    db.rows(_SAVE, challenge_id=challenge_id, horizon=checkpoint.horizon, payload=json.dumps(progress))


def distrust_checkpoints(db: Database) -> None:
    """The transaction ids of all checkpoints are those of another cluster, or of another table's rows."""
    db.rows("UPDATE audius_challenges.checkpoint SET horizon = :horizon", horizon=UNTRUSTED)
