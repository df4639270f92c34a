"""Turns: what no number of a source tells of is looked at every ten minutes, a part of it in each run.

Each row has a second of its own in every ten minutes, by the hash of its id. Its turn is at the first run after it,
whenever that is. So no run is long, and none that is late loses a turn.
"""

from __future__ import annotations

TURN_SECONDS = 600


def clock_of(challenge_id: str) -> str:
    """A common table expression `clock`: now, and when the challenge last ran, in seconds; :as_of is there."""
    return f"""
    clock AS MATERIALIZED (
        SELECT
            extract(EPOCH FROM :as_of::timestamptz)::bigint AS now,
            coalesce(extract(EPOCH FROM max(state.as_of))::bigint, 0) AS last_run
        FROM audius_challenges.processor_state AS state
        WHERE state.challenge_id = '{challenge_id}'
    )"""


def is_in_turn(key: str) -> str:
    """SQL over `clock` of whether it is the turn of a row, by its id."""
    second = f"(hashint8({key}) & 1048575)"
    return f"(clock.now + {second}) / {TURN_SECONDS} > (clock.last_run + {second}) / {TURN_SECONDS}"
