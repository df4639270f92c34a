"""The database that the remembered states are true of, and how a restored or copied one is told from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine.shares import ROLE, Role, role_of
from audius_challenges.sources import TABLES


@dataclass(frozen=True)
class Installation:
    """The database that the remembered states are true of.

    A restored or copied database has another cluster or another `user_challenges`; its transaction ids are not
    those that looks speak of, and its triggers may not be there yet.

    :ivar cluster: the system identifier of the cluster
    :ivar relation: the object id of `user_challenges`
    :ivar guards: the triggers and foreign keys of `user_challenges`, by what they call and reference; a table that
        takes its place has them under other names. And the optional tables that are there
    :ivar names: their names here, which is what 1.1.0 remembered
    """

    cluster: int
    relation: int
    guards: tuple[str, ...]
    names: frozenset[str] = field(default=frozenset(), compare=False)

    def is_here(self, present: Installation) -> bool:
        """Whether this is the present database, and not another that it was restored into."""
        return (self.cluster, self.relation) == (present.cluster, present.relation)

    def missing(self, present: Installation) -> list[str]:
        """The triggers and keys that were there, and are not at present."""
        lost = Counter(self.guards) - Counter(present.guards)
        return sorted(guard for guard in lost if guard not in present.names and guard not in _TABLES)

    def missing_tables(self, present: Installation, moved: Iterable[str]) -> list[str]:
        """The optional tables that were there, and are not at present: what they say is not gone (rule 13).

        :param moved: tables that are in another schema: the challenges that read them fail, and say so
        """
        lost = _TABLES.intersection(self.guards).difference(present.guards)
        return sorted(lost.difference(f"table {name}" for name in moved))


_OPTIONAL = [table.name for table in TABLES.values() if table.is_optional]
_TABLES = frozenset(f"table {name}" for name in _OPTIONAL)

_REMEMBERED = AnyPlan(f"""
    SELECT
        installation.cluster,
        installation.relation,
        installation.guards,{ROLE}
    FROM (SELECT true) AS always
    LEFT JOIN audius_challenges.installation
        ON true
    LEFT JOIN audius_challenges.share_plan AS plan
        ON true
""")

_PRESENT = AnyPlan("""
    SELECT
        system.system_identifier AS cluster,
        relation.oid::bigint AS relation,
        guard.descriptions AS guards,
        guard.names
    FROM pg_control_system() AS system
    INNER JOIN pg_class AS relation
        ON relation.relname = 'user_challenges'
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
    CROSS JOIN LATERAL (
        SELECT
            coalesce(array_agg(each.description), '{}') AS descriptions,
            coalesce(array_agg(each.name), '{}') AS names
        FROM (
            SELECT
                'trigger that calls ' || pg_proc.proname::text || '()' AS description,
                pg_trigger.tgname::text AS name
            FROM pg_trigger
            INNER JOIN pg_proc
                ON pg_trigger.tgfoid = pg_proc.oid
            WHERE pg_trigger.tgrelid = relation.oid
                AND NOT pg_trigger.tgisinternal
            UNION ALL
            SELECT
                'foreign key to ' || referenced.relname::text,
                pg_constraint.conname::text
            FROM pg_constraint
            INNER JOIN pg_class AS referenced
                ON pg_constraint.confrelid = referenced.oid
            WHERE pg_constraint.conrelid = relation.oid
                AND pg_constraint.contype = 'f'
            UNION ALL
            SELECT
                'table ' || optional.relname::text,
                optional.relname::text
            FROM pg_class AS optional
            WHERE optional.relnamespace = namespace.oid
                AND optional.relname = ANY(:optional::text[])
        ) AS each
    ) AS guard
""")

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


def remembered_installation(db: Database) -> tuple[Installation | None, Role]:
    """The database that the states are from, if anything is remembered yet; and what it is by the plan of shares."""
    found = db.row(_REMEMBERED)
    cluster, relation, guards = (found.pop(name) for name in ("cluster", "relation", "guards"))
    return _installation(cluster, relation, guards) if guards is not None else None, role_of(**found)


def present_installation(db: Database) -> Installation | None:
    """The database that this is; None where there is no `user_challenges`."""
    return next((_installation(**row) for row in db.rows(_PRESENT, schema=db.schema, optional=_OPTIONAL)), None)


def remember_installation(db: Database, present: Installation) -> None:
    """From now on the states are true of this database."""
    db.rows(_REMEMBER, cluster=present.cluster, relation=present.relation, guards=list(present.guards))


def _installation(cluster: int, relation: int, guards: list[str], names: Iterable[str] = ()) -> Installation:
    return Installation(cluster, relation, tuple(sorted(guards)), frozenset(names))
