"""What runs did: a row for each run and challenge that wrote, failed or set somebody aside; the others leave none.

The row comes with what it tells of, in one transaction. A challenge that goes on failing with the same error keeps its
one row, which counts the runs, so that a fault of a weekend is no flood.
"""

from __future__ import annotations

from collections.abc import Mapping

from audius_challenges.database import Database

STARTED_FROM_NOW = "started from now"
NO_COUNTS = dict.fromkeys(("users_examined", "rows_inserted", "rows_updated", "rows_completed", "users_set_aside"), 0)

_RECORD = """
    INSERT INTO audius_challenges.history AS known
        (challenge_id, started_at, ended_at, status, duration, users_examined, rows_inserted, rows_updated,
         rows_completed, users_set_aside)
    SELECT
        :challenge_id::text,
        to_timestamp(:began::float8),
        clock_timestamp(),
        :status::text,
        make_interval(secs => :duration::float8),
        :users_examined::bigint,
        :rows_inserted::bigint,
        :rows_updated::bigint,
        :rows_completed::bigint,
        :users_set_aside::bigint
    ON CONFLICT (challenge_id, started_at) DO UPDATE SET
        ended_at = excluded.ended_at,
        duration = known.duration + excluded.duration,
        users_examined = known.users_examined + excluded.users_examined,
        rows_inserted = known.rows_inserted + excluded.rows_inserted,
        rows_updated = known.rows_updated + excluded.rows_updated,
        rows_completed = known.rows_completed + excluded.rows_completed,
        users_set_aside = known.users_set_aside + excluded.users_set_aside
"""

# The same error but for numbers: seconds, ids and counts in it may differ from run to run.
_RECORD_FAILURE = """
    WITH latest AS (
        SELECT
            history.started_at,
            history.status,
            history.error
        FROM audius_challenges.history
        WHERE history.challenge_id = :challenge_id::text
        ORDER BY history.started_at DESC
        LIMIT 1
    ),
    repeated AS (
        UPDATE audius_challenges.history AS known
        SET
            runs = known.runs + 1,
            ended_at = clock_timestamp(),
            duration = coalesce(known.duration + make_interval(secs => :duration::float8), known.duration),
            error = :error::text
        FROM latest
        WHERE :is_repeated::boolean
            AND known.challenge_id = :challenge_id::text
            AND known.started_at = latest.started_at
            AND latest.status = 'failed'
            AND regexp_replace(latest.error, '[0-9]+', '0', 'g') = regexp_replace(:error::text, '[0-9]+', '0', 'g')
        RETURNING 1
    )
    INSERT INTO audius_challenges.history AS known
        (challenge_id, started_at, ended_at, status, duration, error)
    SELECT
        :challenge_id::text,
        to_timestamp(:began::float8),
        clock_timestamp(),
        'failed',
        make_interval(secs => :duration::float8),
        :error::text
    WHERE NOT EXISTS (SELECT FROM repeated)
    ON CONFLICT (challenge_id, started_at) DO UPDATE SET
        ended_at = excluded.ended_at,
        status = excluded.status,
        duration = coalesce(known.duration + excluded.duration, known.duration, excluded.duration),
        error = excluded.error
"""

_TRIM = """
    WITH trimmed AS (
        DELETE FROM audius_challenges.history
        WHERE (history.challenge_id = :challenge_id::text OR :challenge_id::text IS NULL)
            AND history.ended_at < clock_timestamp() - :days::integer * interval '1 day'
            AND history.started_at < clock_timestamp() - :days::integer * interval '1 day'
        RETURNING 1
    )
    SELECT count(*) FROM trimmed
"""


def record(
    db: Database,
    challenge_id: str,
    *,
    began: float,
    duration: float,
    days: int,
    status: str = "ok",
    counts: Mapping[str, int] = NO_COUNTS,
) -> None:
    """Remember what a run did, and forget what the challenge did too long ago.

    A further turn of the challenge in its run, which has the same beginning, makes no other row: it is added. So is
    what a helper does that began in the same microsecond.

    :param began: when the challenge began in this run, in seconds since 1970
    :param duration: seconds that this turn has taken
    :param days: how long the history is kept
    :param counts: of this turn alone, by column: all of `NO_COUNTS`
    """
    db.rows(
        _RECORD,
        challenge_id=challenge_id,
        began=began,
        duration=duration,
        status=status,
        **counts,
    )
    trim(db, days, challenge_id)


def record_failure(
    db: Database, challenge_id: str, error: str, *, began: float, duration: float | None, is_repeated: bool
) -> None:
    """Remember a failure: in a row of its own, or in that of the last one, if it is the same error again.

    :param duration: seconds; None: nobody knows
    :param is_repeated: whether the challenge's run before has failed, too
    """
    db.rows(
        _RECORD_FAILURE,
        challenge_id=challenge_id,
        error=error,
        began=began,
        duration=duration,
        is_repeated=is_repeated,
    )


def trim(db: Database, days: int, challenge_id: str | None = None) -> int:
    """Forget what is older than so many days, of one challenge or of all, and return how many rows that were."""
    trimmed: int = db.value(_TRIM, challenge_id=challenge_id, days=days)
    return trimmed
