"""The one statement that writes user challenges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audius_challenges.contract import Contract
from audius_challenges.database import Database

# LIMIT 1, here and elsewhere: one look into an index for each row, where the planner, misled by an estimate, would read
# and hash all rows of a challenge; the cost must follow what is examined, not what there is. And (SELECT …) around the
# id: to the planner a challenge that statistics have not seen yet has one row, as good as the key.
_DIFFERING = """
    SELECT wanted.*
    FROM wanted
    LEFT JOIN LATERAL (
        SELECT
            user_challenges.specifier,
            user_challenges.is_complete,
            user_challenges.current_step_count,
            user_challenges.amount
        FROM discovery.user_challenges
        WHERE NOT :unseen
            AND user_challenges.challenge_id::text = (SELECT :challenge_id)
            AND user_challenges.specifier::text = wanted.specifier
        LIMIT 1
    ) AS existing ON true
    WHERE CASE
        WHEN existing.specifier IS NULL
            THEN wanted.current_step_count >= 1
        ELSE
            existing.is_complete IS NOT TRUE
            AND (existing.current_step_count, existing.is_complete, existing.amount)
            IS DISTINCT FROM (wanted.current_step_count, wanted.is_complete, wanted.amount)
    END
"""

_UPDATE_INCOMPLETE = """
    ON CONFLICT (challenge_id, specifier) DO UPDATE SET
        is_complete = excluded.is_complete,
        current_step_count = excluded.current_step_count,
        completed_blocknumber = excluded.completed_blocknumber,
        amount = excluded.amount,
        completed_at = excluded.completed_at
    WHERE existing.is_complete IS NOT TRUE
"""


@dataclass
class Written:
    """How many user challenges were inserted, updated, and among both completed."""

    inserted: int = 0
    updated: int = 0
    completed: int = 0

    def add(self, other: Written) -> None:
        """Add another statement's counts."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.completed += other.completed


def write_user_challenges(
    db: Database,
    contract: Contract,
    wanted: str,
    *,
    only_new: bool = False,
    unseen: bool = False,
    **parameters: Any,
) -> Written:
    """Insert what is missing, update what is incomplete and differs; leave every other row unlocked and unwritten.

    :param wanted: SQL of common table expressions, the last named `wanted`, of the columns user_id, specifier,
        current_step_count, is_complete, amount, created_at (timestamptz), completed_at (timestamp, UTC)
    :param only_new: every wanted row must be new: one that is there already is an error
    :param unseen: nothing is looked up, since no row of these users was ever written; one that somebody else has
        written meanwhile is updated if it is incomplete, whether it differs or not
    :param parameters: what `wanted` needs, and challenge_id
    :raises plpy.SPIError: with only_new, if one of the rows exists (unique_violation)
    """
    statement = f"""
        WITH {wanted},
        differing AS ({"SELECT * FROM wanted" if only_new else _DIFFERING}),
        written AS (
            INSERT INTO discovery.user_challenges AS existing
                (challenge_id, user_id, specifier, is_complete, current_step_count,
                 completed_blocknumber, amount, created_at, completed_at)
            SELECT
                :challenge_id,
                differing.user_id,
                differing.specifier,
                differing.is_complete,
                differing.current_step_count,
                CASE WHEN differing.is_complete THEN {contract.greatest_block} END,
                differing.amount,
                differing.created_at,
                CASE WHEN differing.is_complete THEN differing.completed_at END
            FROM differing
            ORDER BY differing.specifier
            {"" if only_new else _UPDATE_INCOMPLETE}
            RETURNING
                is_complete,
                xmax = 0 AS is_new
        )
        SELECT
            count(*) FILTER (WHERE is_new) AS inserted,
            count(*) FILTER (WHERE NOT is_new) AS updated,
            count(*) FILTER (WHERE is_complete) AS completed
        FROM written
    """
    return Written(**db.row(statement, unseen=unseen, **parameters))
