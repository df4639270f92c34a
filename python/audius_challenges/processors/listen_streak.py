"""e, listen streak: a listen a day, 16 to 48 hours apart; 7 $AUDIO for the seventh, 1 for each one after it.

The only challenge with a state of its own: `challenge_listen_streak` keeps each user's last counted listen and the
length of the streak, so that plays, which are pruned in production, are read once, in the order they were played.

The first run that finds the challenge active reads everybody's plays, user by user. From then on a run takes the
plays that were not visible at the checkpoint (see `changes`), at most LISTENS of them; the next run goes on with the
rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

from audius_challenges.changes import (
    IS_RECENT,
    START_OF_TIME,
    Checkpoint,
    Present,
    Source,
    first_checkpoint,
    is_not_before,
    load_checkpoint,
    read_present,
    save_checkpoint,
)
from audius_challenges.contract import ELIGIBLE_USERS, USER_CHALLENGES
from audius_challenges.processor import Work
from audius_challenges.state import Phase
from audius_challenges.user_derived import eligible_users, is_one_of_the_users, next_slice

LISTENS = 200_000

_HOUR = 3_600_000_000
TOO_SOON = 16 * _HOUR
TOO_LATE = 48 * _HOUR

STREAK_LENGTH = 7
STREAK_AMOUNT = 7
FURTHER_AMOUNT = 1

# After a checkpoint that is lost this much is read again; what was counted stays so.
REREAD = 3 * 24 * _HOUR


@dataclass
class Row:
    """A user challenge of this challenge. Times are microseconds since 1970, UTC."""

    specifier: str
    created_at: int
    steps: int = 1
    is_complete: bool = False
    amount: int = STREAK_AMOUNT
    completed_at: int | None = None

    @property
    def order(self) -> tuple[int, str]:
        """The latest row is the greatest by this."""
        return self.created_at, self.specifier


@dataclass
class Streak:
    """One user's streak: the state, the rows it leads to, and what a further listen does to both.

    :ivar length: counted listens of the running streak, 0 before the first
    :ivar last_listen: the last counted listen, microseconds since 1970, UTC
    :ivar latest: the user's latest row by created_at, as far as known
    :ivar existing: rows that are there already, by specifier
    :ivar changed: the rows to write, by specifier
    """

    user_id: int
    length: int
    last_listen: int | None
    latest: Row | None
    existing: Mapping[str, Row]
    changed: dict[str, Row] = field(default_factory=dict)

    def listen(self, at: int) -> None:
        """Go on by a listen that counts."""
        is_broken = self.last_listen is None or at - self.last_listen >= TOO_LATE
        self.length = 1 if is_broken else self.length + 1
        self.last_listen = at
        row = self._running_row(at)
        if row is None:
            specifier = specifier_of(self.user_id, at)
            row = self.existing.get(specifier) or Row(specifier, at)
            is_further = self.length > STREAK_LENGTH
        else:
            is_further = False
        if not row.is_complete:
            row.is_complete = self.length >= STREAK_LENGTH
            row.steps = 1 if is_further else min(self.length, STREAK_LENGTH)
            row.amount = FURTHER_AMOUNT if is_further else STREAK_AMOUNT
            row.completed_at = at if row.is_complete else None
            self.changed[row.specifier] = row
        if self.latest is None or row.order >= self.latest.order:
            self.latest = row

    def _running_row(self, at: int) -> Row | None:
        """The row that this streak goes on with, whatever its specifier looks like; a new streak has none."""
        row = self.latest
        if self.length == 1 or row is None or row.is_complete or row.created_at < at - self.length * TOO_LATE:
            return None
        return row


def counted(listens: Iterable[int], last_listen: int | None, pauses: Iterable[tuple[int, int]]) -> Iterator[int]:
    """The listens that count: not too soon after the last one that did, nor older, nor during a pause.

    :param listens: times in order, microseconds since 1970, UTC
    """
    for at in listens:
        is_too_soon = last_listen is not None and at - last_listen < TOO_SOON
        if not is_too_soon and not any(since <= at <= until for since, until in pauses):
            yield at
            last_listen = at


def specifier_of(user_id: int, at: int) -> str:
    """Hex user id and YYYYMMDDHH (UTC) of a listen."""
    return f"{user_id:x}{_hour_of(at // _HOUR)}"


@lru_cache(maxsize=10_000)
def _hour_of(hours: int) -> str:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    return f"{time.year:04d}{time.month:02d}{time.day:02d}{time.hour:02d}"


_SOURCES = (Source("plays", "id", user="changed.user_id"),)


def _microseconds(timestamp: str) -> str:
    return f"(extract(epoch FROM {timestamp}) * 1000000.0)::bigint"


def _timestamp(microseconds: str) -> str:
    return f"(TIMESTAMP '1970-01-01' + {microseconds}::float8 * INTERVAL '1 microsecond')"


def _listeners(slice_of_plays: str, among: Callable[[str], str]) -> str:
    """SQL of the users who played, with their states and the listens that can matter, in order.

    :param slice_of_plays: a common table expression `slice`: id, user_id, played_at, is_in_window
    :param among: SQL of whether the column of this name is the id of one of them
    """
    return f"""
    WITH {slice_of_plays},
    {eligible_users(among=among("users.user_id"))},
    states AS (
        SELECT
            user_id,
            listen_streak,
            {_microseconds("last_listen_date")} AS last_listen
        FROM discovery.challenge_listen_streak
        WHERE {among("user_id")}
    )
    SELECT
        slice.user_id,
        eligible.user_id IS NOT NULL AS is_eligible,
        states.listen_streak,
        states.last_listen,
        count(*) AS plays,
        max(slice.played_at) AS last_play,
        array_agg(slice.played_at ORDER BY slice.played_at) FILTER (
            WHERE states.last_listen IS NULL OR slice.played_at >= states.last_listen + {TOO_SOON}
        ) AS listens,
        array_agg(slice.id) FILTER (WHERE slice.is_in_window) AS in_window
    FROM slice
    LEFT JOIN eligible
        ON eligible.user_id = slice.user_id
    LEFT JOIN states
        ON states.user_id = slice.user_id
    GROUP BY slice.user_id, eligible.user_id, states.listen_streak, states.last_listen
"""


# SQL: whether a row version is of a transaction that may have been open when the first checkpoint was taken. One of a
# later transaction is of a play that was counted or passed over before, unless its id is in reach.
_WAS_OPEN = f"NOT {is_not_before(':opened')}"

# Materialized: with an order and a limit in reach, the planner would walk all plays by time.
_LISTENERS_OF_BACKLOG = _listeners(
    f"""
    found AS MATERIALIZED (
        SELECT
            changed.id,
            changed.user_id,
            changed.created_at
        FROM discovery.plays AS changed
        WHERE changed.id >= :window
            AND (:horizon IS NULL OR {IS_RECENT})
            AND (changed.id >= :reach OR :opened IS NULL OR {_WAS_OPEN})
            AND changed.created_at > coalesce({_timestamp(":position")}, '-infinity')
            AND changed.created_at >= '0001-01-01'
            AND changed.created_at < '10000-01-01'
            AND changed.user_id IS NOT NULL
            AND changed.id <> ALL(:skipped)
    ),
    slice AS MATERIALIZED (
        SELECT
            found.id,
            found.user_id,
            {_microseconds("found.created_at")} AS played_at,
            found.id >= :least_id AS is_in_window
        FROM found
        ORDER BY found.created_at
        FETCH FIRST :limit ROWS WITH TIES
    )""",
    among=lambda user_id: f"{user_id} = ANY(ARRAY(SELECT DISTINCT slice.user_id FROM slice))",
)

# Whether a later run might take a play that is there now for new.
_IS_IN_REACH = f"""(
            changed.id >= :least_id
            OR (:horizon IS NOT NULL AND {IS_RECENT} AND (:opened IS NULL OR {_WAS_OPEN}))
        )"""

_LISTENERS_AMONG_USERS = _listeners(
    f"""
    slice AS (
        SELECT
            changed.id,
            changed.user_id,
            {_microseconds("changed.created_at")} AS played_at,
            {_IS_IN_REACH} AS is_in_window
        FROM discovery.plays AS changed
        WHERE {is_one_of_the_users("changed.user_id")}
            AND changed.created_at >= '0001-01-01'
            AND changed.created_at < '10000-01-01'
    )""",
    among=is_one_of_the_users,
)

_PLAYS_IN_REACH = f"""
    SELECT changed.id
    FROM discovery.plays AS changed
    WHERE {_IS_IN_REACH}
"""

_PLAYS_OF_NOBODY_IN_REACH = f"""
    {_PLAYS_IN_REACH}
        AND changed.user_id IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM discovery.users
            WHERE users.user_id = changed.user_id
        )
"""

# OFFSET 0: a user's rows, by their index. Without statistics the planner would combine it with that of the challenge.
_LATEST_ROWS = f"""
    SELECT
        latest.user_id,
        latest.specifier,
        latest.is_complete IS TRUE AS is_complete,
        {_microseconds("latest.created_at AT TIME ZONE 'UTC'")} AS created_at
    FROM unnest(:users) AS listener (user_id)
    CROSS JOIN LATERAL (
        SELECT own.*
        FROM (
            SELECT *
            FROM discovery.user_challenges
            WHERE user_challenges.user_id = listener.user_id
            OFFSET 0
        ) AS own
        WHERE own.challenge_id::text = :challenge_id
        ORDER BY own.created_at DESC, own.specifier COLLATE "C" DESC
        LIMIT 1
    ) AS latest
"""

_EXISTING_ROWS = f"""
    SELECT
        existing.specifier,
        existing.is_complete IS TRUE AS is_complete,
        {_microseconds("existing.created_at AT TIME ZONE 'UTC'")} AS created_at
    FROM unnest(:specifiers) AS wanted (specifier)
    CROSS JOIN LATERAL (
        SELECT *
        FROM discovery.user_challenges
        WHERE user_challenges.challenge_id::text = (SELECT :challenge_id)
            AND user_challenges.specifier::text = wanted.specifier
        LIMIT 1
    ) AS existing
"""

_SAVE_STATES = f"""
    INSERT INTO discovery.challenge_listen_streak AS state (user_id, last_listen_date, listen_streak)
    SELECT
        changed.user_id,
        {_timestamp("changed.last_listen")},
        changed.length
    FROM unnest(:users, :times, :streaks) AS changed (user_id, last_listen, length)
    ON CONFLICT (user_id) DO UPDATE SET
        last_listen_date = excluded.last_listen_date,
        listen_streak = excluded.listen_streak
"""

_WANTED = f"""
    wanted AS (
        SELECT
            streak.user_id,
            streak.specifier,
            streak.steps AS current_step_count,
            streak.is_complete,
            streak.amount,
            {_timestamp("streak.created_at")} AT TIME ZONE 'UTC' AS created_at,
            {_timestamp("streak.completed_at")} AS completed_at
        FROM unnest(:users, :specifiers, :steps, :completes, :amounts, :created_at, :completed_at)
            AS streak (user_id, specifier, steps, is_complete, amount, created_at, completed_at)
    )
"""


@dataclass
class Backlog:
    """Plays that are still to be read, in the order they were played.

    :ivar window: the least id
    :ivar horizon: the oldest transaction whose row versions count as unread; None: all of them
    :ivar position: read up to this time, microseconds since 1970, UTC
    :ivar reach: below this id only what was open counts as unread
    :ivar opened: what was open are the transactions before this one
    """

    window: int
    horizon: int | None
    position: int | None = None
    reach: int = START_OF_TIME
    opened: int | None = None


class ListenStreak:
    """The processor of `e`.

    With its checkpoint it keeps: `everybody`, whether the first reading goes on; `backlog`, what else is still to be
    read; `skipped`, ids of plays that were passed over and that a later run might take for new; `opened`, a transaction
    before which all began that were open at the first checkpoint; `paused_since` and `pauses`, between which times
    nothing counts; `started_at`, when it was told to start from now.
    """

    id = "e"
    description = "listen streak"
    reads: Mapping[str, str] = {
        **USER_CHALLENGES,
        **ELIGIBLE_USERS,
        "plays": "id user_id created_at",
        "challenge_listen_streak": "user_id last_listen_date listen_streak",
    }

    def run(self, work: Work) -> None:
        """Count the listens since the last run, or a slice of what is still to be read; with `full_scan`, all."""
        present = read_present(work.db, _SOURCES)
        kept = load_checkpoint(work.db, self.id, _SOURCES)
        work.state.catalog_seen = work.challenge.fingerprint
        if work.state.phase is None:
            work.state.phase = Phase.CATCHING_UP if work.has_user_challenges() else Phase.FIRST_BUILD
            checkpoint = _first_checkpoint(work, present)
            checkpoint.extra["everybody"] = True
        elif kept is None or not kept.is_trusted(present):
            checkpoint = _reread(work, kept, present)
        elif kept.extra.get("everybody") or kept.extra.get("backlog"):
            checkpoint = deepcopy(kept)
        else:
            checkpoint = _advanced(kept, present)
            window, reach = kept.window(present.positions)[0], kept.reach(present.positions)[0]
            opened = kept.extra.get("opened")
            checkpoint.extra["backlog"] = asdict(Backlog(window, kept.horizon, reach=reach, opened=opened))
        if paused_since := checkpoint.extra.pop("paused_since", None):
            pause = [paused_since, work.state.last_success or paused_since]
            checkpoint.extra["pauses"] = [*checkpoint.extra.get("pauses", []), pause]
        work.is_first_build = work.state.phase is Phase.FIRST_BUILD

        read = self._read_everybody if checkpoint.extra.get("everybody") else self._read_backlog
        is_read = read(work, checkpoint)
        while work.full_scan and not is_read:
            is_read = read(work, checkpoint)
        if is_read and work.state.phase is not Phase.WATCHING:
            work.state.complete_round()
        elif not is_read and not work.is_first_build:
            work.state.phase = Phase.CATCHING_UP
        if kept is None or work.users_examined or checkpoint.is_news(kept):
            save_checkpoint(work.db, self.id, _SOURCES, checkpoint)

    def pause(self, work: Work) -> None:
        """Pass over what there is at each run, once the challenge has ever been active: what no run has seen counts."""
        kept = load_checkpoint(work.db, self.id, _SOURCES)
        if work.state.phase is None or kept is None:
            return
        work.contract.require(self.reads)
        present = read_present(work.db, _SOURCES)
        if not kept.is_trusted(present):
            checkpoint = _reread(work, kept, present)
        elif kept.extra.get("everybody") or kept.extra.get("backlog"):
            # Plays from before the pause are still to be read; those of the pause are told by their time.
            checkpoint = deepcopy(kept)
        else:
            checkpoint = _advanced(kept, present)
            _skip(checkpoint, _reachable(work, checkpoint, _PLAYS_IN_REACH))
        checkpoint.extra.setdefault("paused_since", work.now())
        if checkpoint.is_news(kept):
            save_checkpoint(work.db, self.id, _SOURCES, checkpoint)

    def start_from_now(self, work: Work) -> None:
        """Pass over all the plays there are; streaks go on from the states there are."""
        checkpoint = _first_checkpoint(work, read_present(work.db, _SOURCES))
        checkpoint.extra["started_at"] = work.now()
        _skip(checkpoint, _reachable(work, checkpoint, _PLAYS_IN_REACH))
        save_checkpoint(work.db, self.id, _SOURCES, checkpoint)
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint

    def _read_everybody(self, work: Work, checkpoint: Checkpoint) -> bool:
        """Count all plays of the next users, and tell whether they were the last."""
        users = next_slice(work, work.settings.slice_users)
        listeners = work.db.rows(_LISTENERS_AMONG_USERS, **users.parameters, **_reach(checkpoint))
        work.users_examined += users.size
        self._count(work, checkpoint, listeners)
        is_last = work.state.phase is Phase.WATCHING
        if is_last:
            _skip(checkpoint, _reachable(work, checkpoint, _PLAYS_OF_NOBODY_IN_REACH))
        checkpoint.extra["everybody"] = not is_last
        return is_last

    def _read_backlog(self, work: Work, checkpoint: Checkpoint) -> bool:
        """Count one slice of the backlog, and tell whether it was the last."""
        backlog = Backlog(**checkpoint.extra["backlog"])
        listeners = work.db.rows(
            _LISTENERS_OF_BACKLOG,
            **asdict(backlog),
            least_id=checkpoint.window()[0],
            skipped=checkpoint.extra.get("skipped", []),
            limit=LISTENS,
        )
        work.users_examined += len(listeners)
        self._count(work, checkpoint, listeners)
        is_last = bool(sum(listener["plays"] for listener in listeners) < LISTENS)
        if not is_last:
            backlog.position = max(listener["last_play"] for listener in listeners)
        checkpoint.extra["backlog"] = None if is_last else asdict(backlog)
        return is_last

    def _count(self, work: Work, checkpoint: Checkpoint, listeners: list[dict[str, Any]]) -> None:
        """Run the listens of those who count through their streaks and write states and rows; skip the others'."""
        others = [listener for listener in listeners if not listener["is_eligible"]]
        _skip(checkpoint, chain.from_iterable(other["in_window"] or [] for other in others))
        pauses = checkpoint.extra.get("pauses", [])
        listens = {
            listener["user_id"]: list(counted(listener["listens"], listener["last_listen"], pauses))
            for listener in listeners
            if listener["is_eligible"] and listener["listens"]
        }
        latest = {
            row["user_id"]: _row(row) for row in work.db.rows(_LATEST_ROWS, challenge_id=self.id, users=list(listens))
        }
        specifiers = {specifier_of(user_id, at) for user_id, times in listens.items() for at in times}
        existing = {
            row["specifier"]: _row(row)
            for row in work.db.rows(_EXISTING_ROWS, challenge_id=self.id, specifiers=list(specifiers))
        }
        streaks = []
        for listener in listeners:
            user_id, last_listen = listener["user_id"], listener["last_listen"]
            length = 0 if last_listen is None else listener["listen_streak"]
            streak = Streak(user_id, length, last_listen, latest.get(user_id), existing)
            for at in listens.get(user_id, []):
                streak.listen(at)
            if streak.last_listen != last_listen:
                streaks.append(streak)
        if streaks:
            # The state first: the application's trigger on user_challenges reads it.
            work.db.rows(
                _SAVE_STATES,
                users=[streak.user_id for streak in streaks],
                times=[streak.last_listen for streak in streaks],
                streaks=[streak.length for streak in streaks],
            )
            self._write(work, [(streak.user_id, row) for streak in streaks for row in streak.changed.values()])

    def _write(self, work: Work, rows: list[tuple[int, Row]]) -> None:
        work.write(
            _WANTED,
            users=[user_id for user_id, _ in rows],
            specifiers=[row.specifier for _, row in rows],
            steps=[row.steps for _, row in rows],
            completes=[row.is_complete for _, row in rows],
            amounts=[row.amount for _, row in rows],
            created_at=[row.created_at for _, row in rows],
            completed_at=[row.completed_at for _, row in rows],
        )


LISTEN_STREAK = ListenStreak()


def _row(row: dict[str, Any]) -> Row:
    return Row(row["specifier"], row["created_at"], is_complete=row["is_complete"])


def _first_checkpoint(work: Work, present: Present) -> Checkpoint:
    """A checkpoint at the present that remembers which transactions can have been open."""
    checkpoint = first_checkpoint(present, with_open_transactions=True)
    own_transaction: int = work.db.value("SELECT pg_current_xact_id()::text::bigint")
    checkpoint.extra["opened"] = max(own_transaction, present.next_xid)
    return checkpoint


def _advanced(kept: Checkpoint, present: Present) -> Checkpoint:
    """The checkpoint at the present, with the skipped plays that are in reach of a run that begins at the kept one."""
    checkpoint = kept.advanced(present)
    least_id = kept.window(present.positions)[0]
    checkpoint.extra["skipped"] = [play for play in checkpoint.extra.get("skipped", []) if play >= least_id]
    if not checkpoint.has_open_transactions:
        checkpoint.extra.pop("opened", None)
    return checkpoint


def _reread(work: Work, kept: Checkpoint | None, present: Present) -> Checkpoint:
    """A checkpoint at the present after one that cannot be trusted, with a backlog of what no run may have read.

    Ids were restored, transaction ids were not: that is all that is in reach, but for what is known to be skipped.
    Without ids to go by, it is the last days.
    """
    checkpoint = _first_checkpoint(work, present)
    if kept:
        checkpoint.extra = {**deepcopy(kept.extra), "opened": checkpoint.extra["opened"]}
    if checkpoint.extra.get("everybody"):
        work.state.sweep_position = None
    elif kept and not kept.extra.get("backlog"):
        backlog = Backlog(kept.reach(present.positions)[0], None, kept.extra.get("started_at"))
        checkpoint.extra["backlog"] = asdict(backlog)
    else:
        times = [(work.state.last_success or 0) - REREAD]
        if pending := checkpoint.extra.get("backlog"):
            times.append(pending["position"] or 0)
        position = max(min(times), checkpoint.extra.get("started_at", 0))
        checkpoint.extra["backlog"] = asdict(Backlog(START_OF_TIME, None, position))
    return checkpoint


def _skip(checkpoint: Checkpoint, plays: Iterable[int]) -> None:
    """Remember plays that were passed over: they never count."""
    checkpoint.extra["skipped"] = sorted({*checkpoint.extra.get("skipped", []), *plays})


def _reachable(work: Work, checkpoint: Checkpoint, sql: str) -> list[int]:
    """Ids of plays that are there now and that a later run might take for new: a few hundred, and what is open."""
    return [row["id"] for row in work.db.rows(sql, **_reach(checkpoint))]


def _reach(checkpoint: Checkpoint) -> dict[str, int | None]:
    horizon = checkpoint.horizon if checkpoint.has_open_transactions else None
    return {"least_id": checkpoint.reach()[0], "horizon": horizon, "opened": checkpoint.extra.get("opened")}
