"""Caps over time: at most so many rewards of an owner in any span, whichever side of it a deed comes in on."""

from __future__ import annotations

UNCAPPED = """
        granted AS (SELECT candidate.* FROM candidate)"""
"""In the place of `granting`: what there would be without caps."""


def granting(*, most: int, span: str, most_of_group: int | None = None) -> str:
    """Common table expressions, the last one `granted`: those candidates that no cap refuses, one after the other.

    Needs `candidate`, with owner, place (from 1, for each owner) and at, a timestamp; and `record`, the rewards that an
    owner's deeds have, with owner and at. With a cap for groups, both name the group, too. It is refused what finds
    `most` rewards in the span up to it, or would be one too many in the span of a later reward. Rewards are final: so
    what is refused once is refused again.

    :param most: how many rewards an owner may have in a span, its ends included
    :param span: an interval
    :param most_of_group: how many rewards a group may have
    """
    of_group = ""
    if most_of_group is not None:
        of_group = f"""
                    AND cardinality(array_positions(granting.groups, candidate.group_id)) < {most_of_group}"""
    group = "record.group_id" if most_of_group is not None else "0"
    grown = "granting.groups || candidate.group_id" if most_of_group is not None else "granting.groups"
    return f"""
        granting AS (
            SELECT
                owner.owner,
                0::bigint AS place,
                FALSE AS is_granted,
                ARRAY(SELECT record.at FROM record WHERE record.owner = owner.owner) AS times,
                ARRAY(SELECT {group} FROM record WHERE record.owner = owner.owner) AS groups
            FROM (SELECT DISTINCT candidate.owner FROM candidate) AS owner
            UNION ALL
            SELECT
                candidate.owner,
                candidate.place,
                judgement.is_granted,
                CASE WHEN judgement.is_granted THEN granting.times || candidate.at ELSE granting.times END,
                CASE WHEN judgement.is_granted THEN {grown} ELSE granting.groups END
            FROM granting
            INNER JOIN candidate
                ON granting.owner = candidate.owner
                AND granting.place + 1 = candidate.place
            CROSS JOIN LATERAL (
                SELECT
                    (
                        SELECT count(*)
                        FROM unnest(granting.times) AS other (at)
                        WHERE other.at BETWEEN candidate.at - interval '{span}' AND candidate.at
                    ) < {most}
                    AND NOT EXISTS (
                        SELECT FROM unnest(granting.times) AS later (at)
                        WHERE later.at > candidate.at
                            AND later.at - interval '{span}' <= candidate.at
                            AND (
                                SELECT count(*)
                                FROM unnest(granting.times) AS other (at)
                                WHERE other.at BETWEEN later.at - interval '{span}' AND later.at
                            ) >= {most}
                    ){of_group} AS is_granted
            ) AS judgement
        ),
        granted AS (
            SELECT candidate.*
            FROM candidate
            INNER JOIN granting
                ON candidate.owner = granting.owner
                AND candidate.place = granting.place
            WHERE granting.is_granted
        )"""
