"""What the application's triggers on the tables that runs write need of the role that runs, as far as one can tell.

A trigger runs as the role that writes the row, unless its function is SECURITY DEFINER. What a function needs is read
from its text: the tables that follow INSERT INTO, UPDATE, DELETE FROM, FROM and JOIN. What it calls is not followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from audius_challenges.database import Database, Row
from audius_challenges.settings import read_settings
from audius_challenges.sources import WRITTEN

_TRIGGERS = """
    SELECT
        trigger.tgname::text AS name,
        class.relname::text AS table_name,
        format('%I.%I()', home.nspname, function.proname) AS function_name,
        function.prosecdef AS is_definer,
        language.lanname IN ('c', 'internal') AS is_compiled,
        function.prosrc AS source,
        (
            SELECT substr(entry.text, length('search_path=') + 1)
            FROM unnest(function.proconfig) AS entry (text)
            WHERE starts_with(entry.text, 'search_path=')
        ) AS path
    FROM pg_trigger AS trigger
    INNER JOIN pg_class AS class
        ON class.oid = trigger.tgrelid
        AND class.relname = ANY(:written::text[])
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = class.relnamespace
        AND namespace.nspname = :schema::text
    INNER JOIN pg_proc AS function
        ON function.oid = trigger.tgfoid
    INNER JOIN pg_namespace AS home
        ON home.oid = function.pronamespace
    INNER JOIN pg_language AS language
        ON language.oid = function.prolang
    WHERE NOT trigger.tgisinternal
        AND trigger.tgenabled IN ('O', 'A')
    ORDER BY
        class.relname,
        trigger.tgname
"""

_LACKING = """
    WITH mentioned AS (
        SELECT DISTINCT ON (mention.name, mention.privilege)
            mention.privilege,
            found.oid
        FROM unnest(:names::text[], :privileges::text[]) AS mention (name, privilege)
        CROSS JOIN unnest(:path::text[]) WITH ORDINALITY AS schema (name, place)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN mention.name LIKE '%.%' THEN '' ELSE quote_ident(schema.name) || '.' END AS qualifier
        ) AS unqualified
        CROSS JOIN LATERAL (SELECT to_regclass(unqualified.qualifier || mention.name) AS oid) AS found
        ORDER BY
            mention.name,
            mention.privilege,
            found.oid IS NULL,
            schema.place
    ),

    needed AS (
        SELECT
            mentioned.privilege,
            class.oid,
            class.relnamespace,
            namespace.nspname,
            class.relname
        FROM mentioned
        INNER JOIN pg_class AS class
            ON class.oid = mentioned.oid
        INNER JOIN pg_namespace AS namespace
            ON namespace.oid = class.relnamespace
    ),

    lacking AS (
        SELECT format('%s ON TABLE %I.%I', needed.privilege, needed.nspname, needed.relname) AS privilege
        FROM needed
        WHERE NOT CASE needed.privilege
                WHEN 'DELETE' THEN has_table_privilege(:role::text::name, needed.oid, 'DELETE')
                ELSE has_any_column_privilege(:role::text::name, needed.oid, needed.privilege)
            END
        UNION
        SELECT format('USAGE ON SEQUENCE %I.%I', namespace.nspname, class.relname)
        FROM needed
        INNER JOIN pg_depend AS dependency
            ON dependency.refobjid = needed.oid
            AND dependency.refclassid = 'pg_class'::regclass
            AND dependency.classid = 'pg_class'::regclass
            AND dependency.deptype = 'a'
        INNER JOIN pg_class AS class
            ON class.oid = dependency.objid
        INNER JOIN pg_namespace AS namespace
            ON namespace.oid = class.relnamespace
        WHERE needed.privilege = 'INSERT'
            AND CASE
                WHEN class.relkind = 'S' THEN NOT has_sequence_privilege(:role::text::name, class.oid, 'USAGE')
            END
        UNION
        SELECT format('USAGE ON SCHEMA %I', needed.nspname)
        FROM needed
        WHERE NOT has_schema_privilege(:role::text::name, needed.relnamespace, 'USAGE')
    )

    SELECT lacking.privilege
    FROM lacking
    ORDER BY lacking.privilege
"""

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = r'(?:"[^"]+"|[a-z_]\w*)'
_MENTION = re.compile(
    rf"\b(insert\s+into|update|delete\s+from|from|join)\s+(?:only\s+)?({_NAME}(?:\.{_NAME})?)", re.IGNORECASE
)
_UPSERT = re.compile(r"\bdo\s+update\b", re.IGNORECASE)
_PRIVILEGES = {"insert": ("INSERT",), "update": ("UPDATE", "SELECT"), "delete": ("DELETE", "SELECT")}


@dataclass(frozen=True)
class Need:
    """What a role lacks for one trigger.

    :ivar grants: what to grant, such as INSERT ON TABLE log; empty if the function has no text that can be read
    """

    trigger: str
    table: str
    function: str
    grants: tuple[str, ...]

    def as_row(self) -> tuple[Any, ...]:
        """The columns as SQL returns them."""
        return self.trigger, self.table, self.function, list(self.grants)


def trigger_needs(db: Database, role: str) -> list[Need]:
    """The triggers for which a role seems to lack something, or of which nobody can tell."""
    further = read_settings(db).trigger_schemas
    needs = []
    for trigger in triggers_on(db, *WRITTEN):
        if trigger["is_definer"]:
            continue
        lacking = () if trigger["is_compiled"] else _lacking(db, role, trigger, further)
        if lacking or trigger["is_compiled"]:
            needs.append(Need(trigger["name"], trigger["table_name"], trigger["function_name"], lacking))
    return needs


def triggers_on(db: Database, *tables: str) -> list[Row]:
    """The enabled triggers of these tables, with the texts of their functions."""
    return db.rows(_TRIGGERS, schema=db.schema, written=list(tables))


def without_comments(source: str) -> str:
    """A function's text, without what is only for people."""
    return _COMMENT.sub(" ", source)


def _lacking(db: Database, role: str, trigger: Row, further: tuple[str, ...]) -> tuple[str, ...]:
    mentions = sorted(_mentions(trigger["source"]))
    path = [db.schema, *further]
    if trigger["path"] is not None:
        path = [name.strip().strip('"') for name in trigger["path"].split(",")]
    rows = db.rows(
        _LACKING,
        role=role,
        names=[name for name, _ in mentions],
        privileges=[privilege for _, privilege in mentions],
        path=path,
    )
    return tuple(row["privilege"] for row in rows)


def _mentions(source: str) -> set[tuple[str, str]]:
    """Names that may be tables, with the privileges that the words before them call for."""
    text = without_comments(source)
    upserts = _UPSERT.search(text) is not None
    mentions = set()
    for words, name in _MENTION.findall(text):
        verb = words.split()[0].lower()
        privileges = _PRIVILEGES.get(verb, ("SELECT",))
        if verb == "insert" and upserts:
            privileges = ("INSERT", "UPDATE", "SELECT")
        mentions |= {(name, privilege) for privilege in privileges}
    return mentions
