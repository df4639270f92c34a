"""What each challenge has completed on each day: kept for good, so that sums need not read `user_challenges`.

A run adds what it completes, in the transaction that writes it. What was completed before anybody counted is counted
from the rows themselves, in steps of bounded size, one before each of a challenge's turns: in the order of specifiers,
and up to the one that is remembered. Until that is done, a run adds only what lies within the part that is counted
already; the rest is there when the counting comes to it. So each row that a run completes counts once.

What another writer completes counts only if the counting of the past finds it so. It is never counted if its specifier
was counted already, or if the counting is done. Nor is anything taken away when a row is deleted or changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from audius_challenges.database import Database
from audius_challenges.sources import columns_read

STEP = 50_000
"""Rows that one step counts."""


def day_of(row: str) -> str:
    """SQL of the day, in UTC, on which a complete row was completed; earlier services left some without a time."""
    return f"coalesce({row}.completed_at, {row}.created_at AT TIME ZONE 'UTC')::date"


_ADD = """
    INSERT INTO audius_challenges.challenge_day AS known (day, challenge_id, completions, amount)
    SELECT
        total.day,
        :challenge_id::text,
        total.completions,
        total.amount
    FROM unnest(:days::date[], :completions::bigint[], :amounts::numeric[]) AS total (day, completions, amount)
    ORDER BY total.day
    ON CONFLICT (day, challenge_id) DO UPDATE SET
        completions = known.completions + excluded.completions,
        amount = known.amount + excluded.amount
"""

_LOAD = """
    SELECT
        challenge_id,
        counted_to,
        is_done
    FROM audius_challenges.day_backfill
"""

_COUNT_PAST = f"""
    WITH page AS (
        SELECT
            user_challenges.specifier::text AS specifier,
            user_challenges.is_complete,
            user_challenges.amount,
            {day_of("user_challenges")} AS day
        FROM discovery.user_challenges
        WHERE user_challenges.challenge_id::text = :challenge_id::text
            AND (:counted_to::text IS NULL OR user_challenges.specifier::text > :counted_to::text)
        ORDER BY user_challenges.challenge_id, user_challenges.specifier
        LIMIT :step::bigint
    ),
    counted AS (
        INSERT INTO audius_challenges.challenge_day AS known (day, challenge_id, completions, amount, is_backfilled)
        SELECT
            page.day,
            :challenge_id::text,
            count(*),
            sum(page.amount),
            TRUE
        FROM page
        WHERE page.is_complete
        GROUP BY page.day
        ON CONFLICT (day, challenge_id) DO UPDATE SET
            completions = known.completions + excluded.completions,
            amount = known.amount + excluded.amount,
            is_backfilled = excluded.is_backfilled
    )
    INSERT INTO audius_challenges.day_backfill AS known (challenge_id, counted_to, is_done)
    SELECT
        :challenge_id::text,
        coalesce(max(page.specifier), :counted_to::text),
        count(*) < :step::bigint
    FROM page
    ON CONFLICT (challenge_id) DO UPDATE SET
        counted_to = excluded.counted_to,
        is_done = excluded.is_done
    RETURNING
        known.challenge_id,
        known.counted_to,
        known.is_done
"""

COUNTS = columns_read(_COUNT_PAST)
"""What counting the past needs."""


@dataclass(frozen=True)
class Backfill:
    """How far the past of a challenge is counted.

    :ivar counted_to: the last specifier that is; None: none is
    :ivar is_done: whether all are, so that whatever is completed now counts
    """

    challenge_id: str
    counted_to: str | None = None
    is_done: bool = False

    @property
    def parameters(self) -> Mapping[str, object]:
        """What `is_counted` needs."""
        return {"is_all_counted": self.is_done, "counted_to": self.counted_to}


def is_counted(specifier: str) -> str:
    """SQL of whether a row that is completed now is to be added, and not left to the counting of the past."""
    return f"(:is_all_counted::boolean OR {specifier} <= :counted_to::text)"


@dataclass
class Totals:
    """Completions and $AUDIO, by day (as text)."""

    days: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Sequence[Sequence[str]]) -> Totals:
        """Of rows of a day, completions, and $AUDIO, as text."""
        return cls({day: (int(completions), int(amount)) for day, completions, amount in found})

    def add(self, other: Totals) -> None:
        """Add the other's."""
        for day, (completions, amount) in other.days.items():
            known = self.days.get(day, (0, 0))
            self.days[day] = known[0] + completions, known[1] + amount

    def save(self, db: Database, challenge_id: str) -> None:
        """Add all of it to what is kept, and begin anew."""
        if self.days:
            completions, amounts = zip(*self.days.values(), strict=True)
            db.rows(
                _ADD,
                challenge_id=challenge_id,
                days=list(self.days),
                completions=list(completions),
                amounts=list(amounts),
            )
            self.days.clear()


def load_backfills(db: Database) -> dict[str, Backfill]:
    """How far the past of each challenge is counted, by id."""
    return {row["challenge_id"]: Backfill(**row) for row in db.rows(_LOAD)}


def count_past(db: Database, backfill: Backfill) -> Backfill:
    """One step: count the next rows, and remember that."""
    return Backfill(
        **db.row(_COUNT_PAST, challenge_id=backfill.challenge_id, counted_to=backfill.counted_to, step=STEP)
    )
