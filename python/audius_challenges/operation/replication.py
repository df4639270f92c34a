"""Publications and subscriptions of this database that touch what runs write: what their owner has to know."""

from __future__ import annotations

from dataclasses import dataclass

from audius_challenges.database import AnyPlan, Database
from audius_challenges.sources import WRITTEN

# What shares create, by the statements that the extension prints, is as it has to be.
_OURS = "'^audius_challenges_((share|adopt|return)_[0-9]+_of_[0-9]+|return$)'"

_PUBLISHED = f"""
    SELECT
        published.pubname::text AS name,
        bool_or(published.schemaname = 'audius_challenges') AS has_state,
        array_agg(published.tablename::text ORDER BY published.tablename)
        FILTER (WHERE published.schemaname <> 'audius_challenges') AS tables
    FROM pg_publication_tables AS published
    WHERE published.pubname !~ {_OURS}
        AND (
            published.schemaname = 'audius_challenges'
            OR (published.schemaname = :schema::text AND published.tablename = ANY(:written::text[]))
        )
    GROUP BY published.pubname
    ORDER BY published.pubname
"""

_SUBSCRIBED = f"""
    SELECT
        subscription.subname::text AS name,
        array_agg(relation.relname::text ORDER BY relation.relname) AS tables
    FROM pg_subscription_rel AS subscribed
    INNER JOIN pg_subscription AS subscription
        ON subscription.oid = subscribed.srsubid
    INNER JOIN pg_class AS relation
        ON relation.oid = subscribed.srrelid
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    WHERE subscription.subname !~ {_OURS}
        AND (
            namespace.nspname = 'audius_challenges'
            OR (namespace.nspname = :schema::text AND relation.relname = ANY(:written::text[]))
        )
    GROUP BY subscription.subname
    ORDER BY subscription.subname
"""

# Copying may be under way, or what is derived may be sent somewhere else: who ticks here has to know.
_IS_FED = AnyPlan("""
    SELECT EXISTS (
        SELECT FROM pg_subscription_rel AS subscribed
        INNER JOIN pg_class AS relation
            ON relation.oid = subscribed.srrelid
        INNER JOIN pg_namespace AS namespace
            ON namespace.oid = relation.relnamespace
        WHERE (namespace.nspname = :schema::text AND relation.relname = 'users')
            OR (namespace.nspname = 'audius_challenges' AND relation.relname = 'share_plan')
    )
""")

_PAGE = 'See docs/how-to/install.md, "Logical replication".'


@dataclass(frozen=True)
class Remark:
    """What a publication or subscription does to the challenges, and what to do about it."""

    message: str
    hint: str


def publications(db: Database) -> list[Remark]:
    """Those that publish tables which runs write: state, on which a subscriber without it stops, or derived tables."""
    remarks = []
    for row in db.rows(_PUBLISHED, schema=db.schema, written=list(WRITTEN)):
        if row["has_state"]:
            remarks.append(
                Remark(
                    f'publication "{row["name"]}" publishes the tables of schema audius_challenges: a subscription'
                    " stops with an error where these do not exist",
                    "Install the extension on each subscriber and create it there, without a schedule; or replace the"
                    f" publication by one that names schemas. {_PAGE}",
                )
            )
        if row["tables"]:
            remarks.append(
                Remark(
                    f'publication "{row["name"]}" publishes {", ".join(row["tables"])}, which runs write',
                    f"Nobody may write these tables on a subscriber: no schedule there, no other service. {_PAGE}",
                )
            )
    return remarks


def subscriptions(db: Database) -> list[Remark]:
    """Those that write into tables which runs write, so that both would pay."""
    return [
        Remark(
            f'subscription "{row["name"]}" writes {", ".join(row["tables"])}, which runs write, too',
            f"Only one of them may: schedule challenges on the publisher, or publish without these tables. {_PAGE}",
        )
        for row in db.rows(_SUBSCRIBED, schema=db.schema, written=list(WRITTEN))
    ]


def is_fed(db: Database) -> bool:
    """Whether the sources come by a subscription."""
    found: bool = db.value(_IS_FED, schema=db.schema)
    return found
