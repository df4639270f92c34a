"""Deeds that must not be rewarded: those paid before, to whomever and in whatever format, and those passed over."""

from __future__ import annotations

from collections.abc import Sequence

# Where a deed can be known from. The tables have an index by both columns; LIMIT has the planner use it, where EXISTS
# would let it hash a whole table.
_RECORDS = (
    "discovery.user_challenges",
    "discovery.challenge_disbursements",
    "discovery.sol_reward_disbursements",
    "audius_challenges.passed_over",
)


def pair_of(first: str, second: str) -> str:
    """SQL of the specifier of two ids."""
    return f"to_hex({first}) || ':' || to_hex({second})"


def has_no_row(challenge_id: str, specifier: str) -> str:
    """SQL that says of most deeds, and cheaply, that nothing more need be asked: they have a row."""
    return f"""(
                SELECT TRUE
                FROM discovery.user_challenges AS own
                WHERE own.challenge_id::text = (SELECT '{challenge_id}')
                    AND own.specifier::text = {specifier}
                LIMIT 1
            ) IS NULL"""


def is_set_aside(challenge_id: str, examined_id: str, specifier: str = "''") -> str:
    """SQL of whether a deed is set aside, or all that is examined together with it."""
    return f"""EXISTS (
                SELECT FROM audius_challenges.set_aside AS aside
                WHERE aside.challenge_id = '{challenge_id}'
                    AND aside.examined_id = {examined_id}
                    AND aside.specifier IN ('', {specifier})
            )"""


def is_known(challenge_ids: Sequence[str], specifiers: str) -> str:
    """SQL of whether a deed was rewarded, paid, or passed over before.

    :param challenge_ids: of the challenges that may have paid it
    :param specifiers: SQL of an array of the specifiers that it may have there
    """
    ids = f"'{{{','.join(challenge_ids)}}}'::text[]"
    # Most of the tables have nothing at all of a challenge, as a rule: that is found out once, not for each deed.
    records = " OR ".join(
        f"""(
                    EXISTS (
                        SELECT FROM {table}
                        WHERE {name}.challenge_id::text = ANY({ids})
                    )
                    AND (
                        SELECT TRUE
                        FROM {table}
                        WHERE {name}.challenge_id::text = challenge.id
                            AND {name}.specifier::text = deed.specifier
                        LIMIT 1
                    ) IS NOT NULL
                )"""
        for table, name in ((table, table.split(".")[1]) for table in _RECORDS)
    )
    return f"""EXISTS (
                SELECT FROM unnest({ids}) AS challenge (id)
                CROSS JOIN unnest({specifiers}) AS deed (specifier)
                WHERE {records}
            )"""


def records(challenge_ids: Sequence[str], deeds: str) -> str:
    """SQL of where deeds are known from: specifier, record (the table that tells of it).

    :param deeds: SQL of rows specifier, known_as (one of the specifiers that it may have)
    """
    lookups = "\n            UNION ALL\n".join(
        f"""            (
                SELECT '{table}' AS record
                FROM {table}
                WHERE {name}.challenge_id::text = challenge.id
                    AND {name}.specifier::text = deed.known_as
                LIMIT 1
            )"""
        for table, name in ((table, table.split(".")[1]) for table in _RECORDS)
    )
    return f"""
        SELECT
            deed.specifier,
            known.record
        FROM ({deeds}) AS deed
        CROSS JOIN unnest('{{{",".join(challenge_ids)}}}'::text[]) AS challenge (id)
        CROSS JOIN LATERAL (
{lookups}
        ) AS known
    """


def passing_over(deeds: str) -> str:
    """SQL that passes over, for good, what a query of specifiers finds and has no row yet, and counts it."""
    return f"""
        WITH passed AS (
            INSERT INTO audius_challenges.passed_over (challenge_id, specifier)
            SELECT DISTINCT
                :challenge_id::text,
                deed.specifier
            FROM ({deeds}) AS deed
            WHERE deed.specifier IS NOT NULL
                AND (
                    SELECT TRUE
                    FROM discovery.user_challenges
                    WHERE user_challenges.challenge_id::text = :challenge_id::text
                        AND user_challenges.specifier::text = deed.specifier
                    LIMIT 1
                ) IS NULL
            ON CONFLICT (challenge_id, specifier) DO NOTHING
            RETURNING 1
        )
        SELECT count(*) AS passed_over
        FROM passed
    """
