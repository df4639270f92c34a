"""The database that the remembered states are true of, and how a restored or copied one is told from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audius_challenges.database import Database


@dataclass(frozen=True)
class Installation:
    """The database that the remembered states are true of.

    A restored or copied database has another cluster or another `user_challenges`; its transaction ids are not
    those that looks speak of, and its triggers may not be there yet.

    :ivar cluster: the system identifier of the cluster
    :ivar relation: the object id of `user_challenges`
    :ivar guards: names of the triggers and foreign keys of `user_challenges`
    """

    cluster: int
    relation: int
    guards: frozenset[str]

    def is_here(self, present: Installation) -> bool:
        """Whether this is the present database, and not another that it was restored into."""
        return (self.cluster, self.relation) == (present.cluster, present.relation)


_REMEMBERED = """
    SELECT
        cluster,
        relation,
        guards
    FROM audius_challenges.installation
"""

_PRESENT = """
    SELECT
        system.system_identifier AS cluster,
        relation.oid::bigint AS relation,
        ARRAY(
            SELECT tgname::text
            FROM pg_trigger
            WHERE tgrelid = relation.oid
                AND NOT tgisinternal
            UNION
            SELECT conname::text
            FROM pg_constraint
            WHERE conrelid = relation.oid
                AND contype = 'f'
            ORDER BY 1
        ) AS guards
    FROM pg_control_system() AS system
    INNER JOIN pg_class AS relation
        ON relation.relname = 'user_challenges'
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
"""

_REMEMBER = """
    INSERT INTO audius_challenges.installation (singleton, cluster, relation, guards)
    SELECT
        true,
        :cluster::bigint,
        :relation::bigint,
        :guards::text[]
    ON CONFLICT (singleton) DO UPDATE SET
        cluster = excluded.cluster,
        relation = excluded.relation,
        guards = excluded.guards
"""


def remembered_installation(db: Database) -> Installation | None:
    """The database that the states are from; None if nothing is remembered yet."""
    return next((_installation(row) for row in db.rows(_REMEMBERED)), None)


def present_installation(db: Database) -> Installation | None:
    """The database that this is; None where there is no `user_challenges`."""
    return next((_installation(row) for row in db.rows(_PRESENT, schema=db.schema)), None)


def remember_installation(db: Database, present: Installation) -> None:
    """From now on the states are true of this database."""
    db.rows(_REMEMBER, cluster=present.cluster, relation=present.relation, guards=sorted(present.guards))


def _installation(row: dict[str, Any]) -> Installation:
    return Installation(row["cluster"], row["relation"], frozenset(row["guards"]))
