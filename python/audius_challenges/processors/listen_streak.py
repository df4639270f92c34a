"""e, listen streak: a listen a day, 16 to 48 hours apart; 7 $AUDIO for the seventh, 1 for each one after it.

The only challenge with a state of its own: `challenge_listen_streak` keeps each user's last counted listen and the
length of the streak, so that plays, which are pruned in production, are read once, in the order they were played.

A run takes the plays that were not visible at the checkpoint (see `changes`), at most LISTENS of them. What is left
over, and at the very first time everything there is, makes a backlog: its bounds are kept with the checkpoint and
the next runs go on where this one ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from audius_challenges.changes import (
    IS_RECENT,
    Checkpoint,
    Present,
    Source,
    first_checkpoint,
    load_checkpoint,
    read_present,
    save_checkpoint,
)
from audius_challenges.contract import ELIGIBLE_USERS, USER_CHALLENGES
from audius_challenges.processor import Work
from audius_challenges.state import Phase
from audius_challenges.user_derived import eligible_users

LISTENS = 200_000

_HOUR = 3_600_000_000
TOO_SOON = 16 * _HOUR
TOO_LATE = 48 * _HOUR

STREAK_LENGTH = 7
STREAK_AMOUNT = 7
FURTHER_AMOUNT = 1

# After a checkpoint that cannot be trusted (another cluster) this much is read again; what was counted stays so.
REREAD = 3 * 24 * _HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Row:
    """A user challenge of this challenge. Times are microseconds since 1970, UTC."""

    specifier: str
    created_at: int
    steps: int = 1
    is_complete: bool = False
    amount: int = STREAK_AMOUNT
    completed_at: int | None = None


@dataclass
class Streak:
    """One user's streak: the state, the rows it leads to, and what a further listen does to both.

    :ivar length: counted listens of the running streak, 0 before the first
    :ivar last_listen: the last counted listen, microseconds since 1970, UTC
    :ivar latest: the user's latest row by created_at, as far as known
    :ivar changed: the rows to write, by specifier
    """

    user_id: int
    length: int = 0
    last_listen: int | None = None
    latest: Row | None = None
    changed: dict[str, Row] = field(default_factory=dict)

    def listen(self, at: int) -> None:
        """Count a listen, unless it is too soon after the last one, older, or seen before."""
        if self.last_listen is None or at - self.last_listen >= TOO_LATE:
            self.length = 1
        elif at - self.last_listen >= TOO_SOON:
            self.length += 1
        else:
            return
        self.last_listen = at
        row = self._running_row(at) or Row(f"{self.user_id:x}{specifier_hour(at)}", at)
        if row is not self.latest and self.length > STREAK_LENGTH:
            row.steps, row.amount, row.is_complete = 1, FURTHER_AMOUNT, True
        else:
            row.steps = min(self.length, STREAK_LENGTH)
            row.is_complete = self.length >= STREAK_LENGTH
        row.completed_at = at if row.is_complete else None
        self.changed[row.specifier] = row
        if self.latest is None or (row.created_at, row.specifier) >= (
            self.latest.created_at,
            self.latest.specifier,
        ):
            self.latest = row

    def _running_row(self, at: int) -> Row | None:
        """The row that this streak goes on with, whatever its specifier looks like; a new streak has none."""
        row = self.latest
        if self.length == 1 or row is None or row.is_complete or row.created_at < at - self.length * TOO_LATE:
            return None
        row.amount = STREAK_AMOUNT
        return row


def specifier_hour(at: int) -> str:
    """YYYYMMDDHH (UTC) of a time in microseconds since 1970."""
    time = _EPOCH + timedelta(microseconds=at)
    return f"{time.year:04d}{time.month:02d}{time.day:02d}{time.hour:02d}"


_SOURCES = (Source("plays", "id", user="changed.user_id"),)


def _microseconds(timestamp: str) -> str:
    return f"(extract(epoch FROM {timestamp}) * 1000000)::bigint"


def _timestamp(microseconds: str) -> str:
    return f"(TIMESTAMP '1970-01-01' + {microseconds} * INTERVAL '1 microsecond')"


_LISTENERS = f"""
    WITH slice AS MATERIALIZED (
        SELECT
            changed.id,
            changed.user_id,
            {_microseconds("changed.created_at")} AS played_at,
            changed.id >= :least_id AS is_in_window
        FROM discovery.plays AS changed
        WHERE changed.id >= :window
            AND (:horizon IS NULL OR {IS_RECENT})
            AND changed.created_at > coalesce({_timestamp(":position")}, '-infinity')
            AND changed.created_at <= coalesce({_timestamp(":until")}, 'infinity')
            AND isfinite(changed.created_at)
            AND changed.user_id IS NOT NULL
            AND changed.id <> ALL(:skipped)
        ORDER BY changed.created_at
        FETCH FIRST :limit ROWS WITH TIES
    ),
    {eligible_users(among="ARRAY(SELECT DISTINCT slice.user_id FROM slice)")},
    states AS (
        SELECT
            user_id,
            listen_streak,
            {_microseconds("last_listen_date")} AS last_listen
        FROM discovery.challenge_listen_streak
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

_LATEST_ROWS = f"""
    SELECT DISTINCT ON (user_id)
        user_id,
        specifier,
        coalesce(is_complete, false) AS is_complete,
        {_microseconds("created_at AT TIME ZONE 'UTC'")} AS created_at
    FROM discovery.user_challenges
    WHERE challenge_id = :challenge_id
        AND user_id = ANY(:users)
    ORDER BY user_id, created_at DESC, specifier COLLATE "C" DESC
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

_IN_WINDOW = "SELECT plays.id FROM discovery.plays WHERE plays.id >= :least_id"


@dataclass
class Backlog:
    """Plays that are still to be read, in the order they were played. Times are microseconds since 1970, UTC.

    :ivar window: the least id
    :ivar horizon: the oldest transaction whose row versions count as unread; None: all of them
    :ivar position: read up to this time
    :ivar until: read no further than this time: a pause began then
    """

    window: int
    horizon: int | None
    position: int | None = None
    until: int | None = None


_EVERYTHING = Backlog(window=-(1 << 62), horizon=None)


class ListenStreak:
    """The processor of `e`."""

    id = "e"
    description = "listen streak"
    reads: Mapping[str, str] = {
        **USER_CHALLENGES,
        **ELIGIBLE_USERS,
        "plays": "id user_id created_at",
        "challenge_listen_streak": "user_id last_listen_date listen_streak",
    }

    def run(self, work: Work) -> None:
        """Count the listens since the last run, or a slice of the backlog; with `full_scan`, all of it."""
        work.state.catalog_seen = work.challenge.fingerprint
        present = read_present(work.db, _SOURCES)
        kept = load_checkpoint(work.db, self.id, _SOURCES)
        if work.state.phase is None:
            work.state.phase = Phase.CATCHING_UP if work.has_user_challenges() else Phase.FIRST_BUILD
            checkpoint = first_checkpoint(present)
            backlog = _EVERYTHING
        elif kept is None or not kept.is_trusted(present):
            checkpoint = first_checkpoint(present)
            backlog = self._backlog_to_reread(work, kept)
        elif kept.extra.get("backlog"):
            checkpoint = deepcopy(kept)
            backlog = Backlog(**kept.extra["backlog"])
        else:
            checkpoint = _advanced(kept, present)
            backlog = Backlog(kept.window(present.positions)[0], kept.horizon)
        work.is_first_build = work.state.phase is Phase.FIRST_BUILD

        remaining = self._read(work, checkpoint, backlog)
        while remaining and work.full_scan:
            remaining = self._read(work, checkpoint, remaining)
        checkpoint.extra["backlog"] = asdict(remaining) if remaining else None
        if remaining:
            if not work.is_first_build:
                work.state.phase = Phase.CATCHING_UP
        elif work.state.phase is not Phase.WATCHING:
            work.state.complete_round()
        if kept is None or checkpoint.is_news(kept):
            save_checkpoint(work.db, self.id, _SOURCES, checkpoint)

    def pause(self, work: Work) -> None:
        """Pass over what is listened meanwhile, once the challenge has ever been active."""
        kept = load_checkpoint(work.db, self.id, _SOURCES)
        if work.state.phase is None or kept is None:
            return
        now = work.now()
        present = read_present(work.db, _SOURCES)
        checkpoint = _advanced(kept, present) if kept.is_trusted(present) else first_checkpoint(present)
        checkpoint.extra["skipped"] = _plays_in_window(work, checkpoint)
        if backlog := kept.extra.get("backlog"):
            checkpoint.extra["backlog"] = {**backlog, "until": backlog["until"] or now}
        if checkpoint.is_news(kept):
            checkpoint.extra["paused_until"] = now
            save_checkpoint(work.db, self.id, _SOURCES, checkpoint)

    def start_from_now(self, work: Work) -> None:
        """Pass over all the plays there are; streaks go on from the states there are."""
        checkpoint = first_checkpoint(read_present(work.db, _SOURCES))
        checkpoint.extra["skipped"] = _plays_in_window(work, checkpoint)
        save_checkpoint(work.db, self.id, _SOURCES, checkpoint)
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint

    def _backlog_to_reread(self, work: Work, kept: Checkpoint | None) -> Backlog:
        """What to read again after a checkpoint that cannot be trusted; no listen of a pause is among it."""
        extra = kept.extra if kept else {}
        backlog = Backlog(**extra["backlog"]) if extra.get("backlog") else None
        times = [(work.state.last_success or 0) - REREAD]
        if backlog:
            times.append(_EVERYTHING.window if backlog.position is None else backlog.position)
        position = max(min(times), extra.get("paused_until") or min(times))
        return Backlog(_EVERYTHING.window, None, position, backlog.until if backlog else None)

    def _read(self, work: Work, checkpoint: Checkpoint, backlog: Backlog) -> Backlog | None:
        """Count one slice of the backlog and return what is left of it."""
        skipped = checkpoint.extra.setdefault("skipped", [])
        listeners = work.db.rows(
            _LISTENERS, **asdict(backlog), least_id=checkpoint.window()[0], skipped=skipped, limit=LISTENS
        )
        work.users_examined += len(listeners)
        for listener in listeners:
            if not listener["is_eligible"]:
                skipped.extend(listener["in_window"] or [])
        self._count(work, [listener for listener in listeners if listener["is_eligible"] and listener["listens"]])
        if sum(listener["plays"] for listener in listeners) < LISTENS:
            return None
        last_play = max(listener["last_play"] for listener in listeners)
        return Backlog(backlog.window, backlog.horizon, last_play, backlog.until)

    def _count(self, work: Work, listeners: list[dict[str, Any]]) -> None:
        if not listeners:
            return
        latest_rows = {
            row["user_id"]: Row(row["specifier"], row["created_at"], is_complete=row["is_complete"])
            for row in work.db.rows(
                _LATEST_ROWS, challenge_id=self.id, users=[listener["user_id"] for listener in listeners]
            )
        }
        streaks = []
        for listener in listeners:
            user_id = listener["user_id"]
            last_listen = listener["last_listen"]
            length = 0 if last_listen is None else listener["listen_streak"]
            streak = Streak(user_id, length, last_listen, latest_rows.get(user_id))
            for at in listener["listens"]:
                streak.listen(at)
            streaks.append(streak)
        # The state first: the application's trigger on user_challenges reads it.
        work.db.rows(
            _SAVE_STATES,
            users=[streak.user_id for streak in streaks],
            times=[streak.last_listen for streak in streaks],
            streaks=[streak.length for streak in streaks],
        )
        self._write_rows(work, streaks)

    def _write_rows(self, work: Work, streaks: Iterable[Streak]) -> None:
        rows = [(streak.user_id, row) for streak in streaks for row in streak.changed.values()]
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


def _advanced(kept: Checkpoint, present: Present) -> Checkpoint:
    """The checkpoint at the present, with its skipped plays as far as they are in reach."""
    checkpoint = kept.advanced(present)
    least_id = checkpoint.window()[0]
    checkpoint.extra["skipped"] = [play for play in checkpoint.extra.get("skipped", []) if play >= least_id]
    return checkpoint


def _plays_in_window(work: Work, checkpoint: Checkpoint) -> list[int]:
    """Plays that are there now and that a later run might take for new: a few hundred, and what is held open."""
    return [row["id"] for row in work.db.rows(_IN_WINDOW, least_id=checkpoint.window()[0])]
