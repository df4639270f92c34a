"""The clock of a run, and what has come by it (rule 14)."""

from __future__ import annotations

AS_OF = ":as_of::timestamptz"


def latest_by(clock: str = AS_OF) -> str:
    """SQL of the latest time that has come, as a timestamp in UTC: clocks differ by up to 5 minutes."""
    return f"{clock} AT TIME ZONE 'UTC' + interval '5 minutes'"


def has_come(at: str, clock: str = AS_OF) -> str:
    """SQL of whether a row of a source is there by its time: one with an infinite time is not.

    :param at: SQL of a timestamp in UTC
    """
    return f"{at} > '-infinity' AND {at} <= {latest_by(clock)}"
