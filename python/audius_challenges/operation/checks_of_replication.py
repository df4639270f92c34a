"""Checks of the doctor: publications that stop writers, and slots that hold the server's log for whoever is behind."""

from __future__ import annotations

from collections.abc import Iterator

from audius_challenges.operation.findings import CRITICAL, NOTICE, WARNING, Examined, Finding
from audius_challenges.operation.replication import publications, subscriptions
from audius_challenges.sources import TABLES

# Bytes of WAL that a slot of a share may hold.
MUCH_WAL = 1 << 30

# Seconds for which a copy may wait for others' transactions.
PATIENCE = 30

OF_A_SHARE = "^audius_challenges_(share|adopt|return)_[0-9]+_of_[0-9]+(_epoch_[0-9]+)?$"
OF_A_COPY = "^pg_[0-9]+_sync_[0-9]+_"

# As PostgreSQL asks it of each table that is written, be it a part: the publications of the table, of those that it is
# a part of, of its schema and of all tables. A column has the same name in a table and its parts, not the same number.
_STOPPING = """
    WITH written AS (
        SELECT
            relation.relname::text AS name,
            part.oid
        FROM pg_class AS relation
        CROSS JOIN LATERAL (
            SELECT relation.oid
            UNION
            SELECT tree.relid
            FROM pg_partition_tree(relation.oid) AS tree
            WHERE tree.isleaf
        ) AS part
        WHERE relation.relnamespace = to_regnamespace(quote_ident(:schema::text))
            AND relation.relname = ANY(:tables::text[])
            AND relation.relkind IN ('r', 'p')
    ),

    identity AS (
        SELECT
            written.name,
            stored.oid,
            stored.relnamespace,
            stored.relreplident = 'f' AS is_whole,
            coalesce(
                (
                    SELECT array_agg(attribute.attname::text ORDER BY attribute.attnum)
                    FROM pg_index AS built
                    INNER JOIN pg_attribute AS attribute
                        ON attribute.attrelid = built.indrelid
                        AND attribute.attnum = ANY(built.indkey)
                    WHERE built.indrelid = stored.oid
                        AND built.indisvalid
                        AND CASE stored.relreplident
                            WHEN 'd' THEN built.indisprimary AND built.indimmediate
                            WHEN 'i' THEN built.indisreplident
                            ELSE FALSE
                        END
                ),
                '{}'
            ) AS columns
        FROM written
        INNER JOIN pg_class AS stored
            ON stored.oid = written.oid
            AND stored.relkind = 'r'
            AND stored.relpersistence = 'p'
    ),

    published AS (
        SELECT
            identity.name,
            identity.oid,
            identity.is_whole,
            identity.columns,
            publication.pubname::text AS publication,
            publication.pubupdate,
            publication.pubdelete,
            member.prrelid IS NOT NULL OR publication.puballtables OR of_schema.pnpubid IS NOT NULL AS is_in,
            member.prrelid,
            member.filtered,
            member.listed
        FROM identity
        CROSS JOIN pg_publication AS publication
        LEFT JOIN LATERAL (
            SELECT DISTINCT inside.pnpubid
            FROM pg_publication_namespace AS inside
            INNER JOIN pg_class AS whole
                ON whole.relnamespace = inside.pnnspid
            WHERE inside.pnpubid = publication.oid
                AND (
                    whole.oid = identity.oid
                    OR whole.oid IN (SELECT ancestor.relid FROM pg_partition_ancestors(identity.oid) AS ancestor)
                )
        ) AS of_schema
            ON TRUE
        LEFT JOIN LATERAL (
            SELECT
                entry.prrelid,
                -- Without publish_via_partition_root, a filter of the whole does not count for its parts.
                CASE WHEN is_its_own.yes THEN (
                    SELECT array_agg(DISTINCT attribute.attname::text)
                    FROM regexp_matches(entry.prqual::text, ':varattno ([0-9]+)', 'g') AS variable
                    INNER JOIN pg_attribute AS attribute
                        ON attribute.attrelid = entry.prrelid
                        AND attribute.attnum = variable[1]::integer
                ) END AS filtered,
                CASE WHEN is_its_own.yes THEN (
                    SELECT array_agg(attribute.attname::text)
                    FROM pg_attribute AS attribute
                    WHERE attribute.attrelid = entry.prrelid
                        AND attribute.attnum = ANY(entry.prattrs)
                ) END AS listed
            FROM (
                SELECT
                    identity.oid AS relid,
                    0 AS level
                UNION
                SELECT
                    ancestor.relid,
                    ancestor.level - 1
                FROM pg_partition_ancestors(identity.oid) WITH ORDINALITY AS ancestor (relid, level)
            ) AS whole
            INNER JOIN pg_publication_rel AS entry
                ON entry.prpubid = publication.oid
                AND entry.prrelid = whole.relid
            CROSS JOIN LATERAL (
                SELECT publication.pubviaroot OR entry.prrelid = identity.oid AS yes
            ) AS is_its_own
            ORDER BY
                CASE WHEN publication.pubviaroot THEN -whole.level ELSE whole.level END
            LIMIT 1
        ) AS member
            ON TRUE
        WHERE publication.pubupdate
            OR publication.pubdelete
    )

    SELECT DISTINCT
        stopping.publication,
        stopping.name,
        concat_ws(
            ' and ',
            CASE WHEN stopping.pubupdate THEN 'UPDATE' END,
            CASE WHEN stopping.pubdelete THEN 'DELETE' END
        ) AS writes,
        CASE
            WHEN stopping.reason = 'identity' AND stopping.listed IS NULL
                THEN format('ALTER TABLE %s REPLICA IDENTITY FULL;', stopping.oid::regclass)
            ELSE format('ALTER PUBLICATION %I DROP TABLE %s;', stopping.publication, stopping.prrelid::regclass)
        END AS statement,
        stopping.reason,
        array_to_string(stopping.columns, ', ') AS identity
    FROM (
        SELECT
            published.*,
            CASE
                WHEN NOT published.is_whole AND published.columns = '{}' THEN 'identity'
                WHEN NOT published.is_whole AND NOT published.filtered <@ published.columns THEN 'filter'
                WHEN published.is_whole OR NOT published.columns <@ published.listed
                    THEN CASE WHEN published.listed IS NOT NULL THEN 'columns' END
            END AS reason
        FROM published
        WHERE published.is_in
    ) AS stopping
    WHERE stopping.reason IS NOT NULL
    ORDER BY
        stopping.publication,
        stopping.name
"""

_WHY = {
    "identity": "it has no replica identity",
    "filter": "it is filtered by columns that are not in its replica identity",
    "columns": "its list of columns lacks some of its replica identity",
}

_SLOTS = """
    SELECT
        slot.slot_name::text AS name,
        quote_literal(slot.slot_name) AS literal,
        slot.slot_name ~ :of_a_copy::text AS is_of_copy,
        slot.active,
        coalesce(slot.wal_status, '') = 'lost' AS is_lost,
        coalesce(held.bytes, 0) AS bytes,
        coalesce(pg_size_pretty(held.bytes), 'an unknown amount') AS size
    FROM pg_replication_slots AS slot
    CROSS JOIN LATERAL (
        SELECT
            pg_wal_lsn_diff(
                CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                slot.restart_lsn
            ) AS bytes
    ) AS held
    WHERE slot.slot_type = 'logical'
        AND slot.database = current_database()
        AND (slot.slot_name ~ :of_a_share::text OR slot.slot_name ~ :of_a_copy::text)
    ORDER BY slot.slot_name
    LIMIT 50
"""

_WAL_LIMIT = "SELECT current_setting('max_slot_wal_keep_size')"

# Whoever makes a slot waits for each transaction that was open then, one after the other.
_HELD_UP = """
    SELECT
        sender.application_name AS subscriber,
        holder.pid,
        coalesce(holder.usename::text, 'nobody') AS role,
        holder.state,
        date_trunc('second', clock_timestamp() - holder.xact_start)::text AS age
    FROM pg_stat_activity AS sender
    CROSS JOIN LATERAL unnest(pg_blocking_pids(sender.pid)) AS blocking (pid)
    INNER JOIN pg_stat_activity AS holder
        ON holder.pid = blocking.pid
    WHERE sender.backend_type = 'walsender'
        AND holder.xact_start < clock_timestamp() - :patience::float8 * interval '1 second'
    ORDER BY
        holder.xact_start,
        sender.application_name
    LIMIT 10
"""


def writers(examined: Examined) -> Iterator[Finding]:
    """Publications because of which PostgreSQL refuses what the application writes."""
    for row in examined.db.rows(_STOPPING, schema=examined.db.schema, tables=list(TABLES)):
        found = f'publication "{row["publication"]}" publishes it, and {_WHY[row["reason"]]}'
        if row["identity"]:
            found += f" ({row['identity']})"
        yield Finding(
            CRITICAL,
            f"{row['writes']} of {row['name']} fail{'' if ' ' in row['writes'] else 's'}",
            found,
            "a replica identity that has these columns, or a publication of inserts alone; without the table in it, who"
            " subscribes gets its changes no more",
            row["statement"],
        )


def logical_replication(examined: Examined) -> Iterator[Finding]:
    """Subscriptions that write what runs write, and publications of it."""
    for severity, remarks in (
        (CRITICAL, subscriptions(examined.db)),
        (NOTICE, publications(examined.db)),
    ):
        for remark in remarks:
            yield Finding(severity, "logical replication touches what runs write", remark.message, remark.hint)


def slots(examined: Examined) -> Iterator[Finding]:
    """Slots of shares, and of copies that were begun, which hold WAL or have lost it."""
    found = examined.db.rows(_SLOTS, of_a_share=OF_A_SHARE, of_a_copy=OF_A_COPY)
    for row in found:
        drop = f"SELECT pg_drop_replication_slot({row['literal']});"
        held = f"slot {row['name']} holds {row['size']} of WAL"
        if row["is_lost"]:
            what = f"the slot {row['name']} has lost WAL that was not read: its subscription has come to an end"
            expected = "the slot goes, and what it fed is copied again"
            yield Finding(CRITICAL, what, "wal_status is lost: max_slot_wal_keep_size was reached", expected, drop)
        elif row["is_of_copy"] and not row["active"]:
            yield Finding(
                WARNING,
                "the copy of a table for a subscriber does not go on",
                held,
                "it goes on: the subscriber's log says what stops it (rows that were there before it?); or, if the"
                f" subscriber is gone for good: {drop}",
            )
        elif not row["active"]:
            yield Finding(
                WARNING,
                "nobody reads the slot of a share",
                held,
                f"the subscription of the same name is enabled and connects; or, if it is gone for good: {drop}",
            )
        elif row["bytes"] > MUCH_WAL:
            expected = "whoever reads it keeps up: see its server's log, and transactions that are open for long here"
            yield Finding(WARNING, "a share is far behind", held, expected)
    if any(not row["is_of_copy"] for row in found) and examined.db.value(_WAL_LIMIT) == "-1":
        yield Finding(
            WARNING,
            "a share that is down fills the disk with WAL",
            "max_slot_wal_keep_size is -1, without limit",
            "less than what is free, such as: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; and then SELECT"
            " pg_reload_conf(); beyond it the share is lost, and the server is not",
        )


def copies(examined: Examined) -> Iterator[Finding]:
    """Transactions that a copy for a subscriber waits for before it begins."""
    for row in examined.db.rows(_HELD_UP, patience=PATIENCE):
        idles = (row["state"] or "").startswith("idle")
        end_it = f"SELECT pg_terminate_backend({row['pid']});"
        yield Finding(
            WARNING,
            f'an open transaction holds up "{row["subscriber"]}", which cannot begin to copy',
            f"process {row['pid']} of {row['role']}: {row['state']}, open for {row['age']}",
            "it ends" if idles else f"it ends by itself, or by {end_it}",
            end_it if idles else "",
        )
