"""Everything that PostgreSQL's catalogs say of the extension and its objects, to compare two databases by."""

import re
from typing import Any

from tests.sessions import Connection, rows

# The members, and what is inside of them or hangs on them: types of tables, indexes, constraints, rules.
_MEMBERS = """
    WITH RECURSIVE member (classid, objid) AS (
        SELECT pg_depend.classid, pg_depend.objid
        FROM pg_depend
        INNER JOIN pg_extension ON pg_extension.oid = pg_depend.refobjid
        WHERE refclassid = 'pg_extension'::regclass
            AND deptype = 'e'
            AND extname = 'audius_challenges'
        UNION
        SELECT pg_depend.classid, pg_depend.objid
        FROM member
        INNER JOIN pg_depend
            ON refclassid = member.classid
            AND refobjid = member.objid
            AND deptype IN ('i', 'a', 'P', 'S')
    )
"""
_ACL = """
    ARRAY(
        SELECT concat_ws(
            ' ',
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
            privilege_type,
            CASE WHEN is_grantable THEN 'with grant option' END,
            'by', grantor::regrole
        )
        FROM aclexplode({acl})
        ORDER BY 1
    )
"""

# Name → a query. Object ids are put as names, since they differ between databases.
_QUERIES = {
    "extension": """
        SELECT
            extversion, extrelocatable, extnamespace::regnamespace::text, extowner::regrole::text, extcondition,
            ARRAY(SELECT unnest(extconfig)::regclass::text ORDER BY 1), obj_description(oid, 'pg_extension')
        FROM pg_extension
        WHERE extname = 'audius_challenges'
    """,
    "required extensions": """
        SELECT pg_describe_object(refclassid, refobjid, refobjsubid), deptype
        FROM pg_depend
        WHERE classid = 'pg_extension'::regclass
            AND objid = (SELECT oid FROM pg_extension WHERE extname = 'audius_challenges')
    """,
    "members": f"""
        {_MEMBERS}
        SELECT identified.type, identified.schema, identified.identity
        FROM member
        CROSS JOIN pg_identify_object(classid, objid, 0) AS identified
    """,
    "dependencies": f"""
        {_MEMBERS}
        SELECT
            pg_describe_object(pg_depend.classid, pg_depend.objid, objsubid),
            pg_describe_object(refclassid, refobjid, refobjsubid),
            deptype
        FROM member
        INNER JOIN pg_depend USING (classid, objid)
    """,
    "comments": f"""
        {_MEMBERS}
        SELECT pg_describe_object(classid, objid, objsubid), description
        FROM member
        INNER JOIN pg_description ON classoid = classid AND objoid = objid
    """,
    "schemas": f"""
        {_MEMBERS}
        SELECT nspname, nspowner::regrole::text, {_ACL.format(acl="nspacl")}
        FROM member
        INNER JOIN pg_namespace ON classid = 'pg_namespace'::regclass AND objid = oid
    """,
    "routines": f"""
        {_MEMBERS}
        SELECT
            -- Of bytecode, what it was made of and by which Python: it need not be the same to the letter.
            regexp_replace(pg_get_functiondef(oid), '^(BYTECODE = [^{{]*).*$', '\\1', 'n'),
            proowner::regrole::text, {_ACL.format(acl="proacl")},
            to_jsonb(pg_proc) - ARRAY[
                'oid', 'proname', 'pronamespace', 'proowner', 'prolang', 'prorettype', 'prosrc', 'proacl',
                'proargdefaults'  -- as text in the definition
            ]
        FROM member
        INNER JOIN pg_proc ON classid = 'pg_proc'::regclass AND objid = oid
    """,
    "relations": f"""
        {_MEMBERS}
        SELECT
            oid::regclass::text, relkind, relpersistence, relreplident, relrowsecurity, reloptions,
            relowner::regrole::text, {_ACL.format(acl="relacl")},
            CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) WHEN 'i' THEN pg_get_indexdef(oid) END
        FROM member
        INNER JOIN pg_class ON classid = 'pg_class'::regclass AND objid = oid
    """,
    "columns": f"""
        {_MEMBERS}
        SELECT
            attrelid::regclass::text, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attstorage,
            ARRAY(SELECT option FROM unnest(attoptions) AS option WHERE option !~ '^pg_attver='),  -- the server's own
            attisdropped, {_ACL.format(acl="attacl")}, pg_get_expr(adbin, adrelid)
        FROM member
        INNER JOIN pg_class ON classid = 'pg_class'::regclass AND objid = pg_class.oid AND relkind IN ('r', 'v')
        INNER JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    """,
    "constraints": f"""
        {_MEMBERS}
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated
        FROM member
        INNER JOIN pg_constraint ON classid = 'pg_constraint'::regclass AND objid = oid
    """,
    "types": f"""
        {_MEMBERS}
        SELECT oid::regtype::text, typtype, typowner::regrole::text, {_ACL.format(acl="typacl")}, ARRAY(
            SELECT enumlabel FROM pg_enum WHERE enumtypid = pg_type.oid ORDER BY enumsortorder
        )
        FROM member
        INNER JOIN pg_type ON classid = 'pg_type'::regclass AND objid = oid
    """,
    "initial privileges": f"""
        {_MEMBERS}
        SELECT pg_describe_object(classid, objid, objsubid), privtype, {_ACL.format(acl="initprivs")}
        FROM member
        INNER JOIN pg_init_privs ON classoid = classid AND objoid = objid
    """,
}


def anatomy(connection: Connection) -> dict[str, list[str]]:
    """What the catalogs say, by subject: a line for each fact, the same in any two databases that are alike."""
    return {subject: sorted(map(_line, rows(connection, query))) for subject, query in _QUERIES.items()}


def _line(row: tuple[Any, ...]) -> str:
    return re.sub(r"pg_toast_\d+", "pg_toast_of_it", " | ".join(map(str, row)))  # which is named by an object id
