"""The guard of a node: why it must not derive anything at the moment, asked in each transaction of a tick.

What a node derives is right if its tables are one moment of the primary, and if it goes on from what had been written
when the plan was made. A table that is still being copied is of another moment than the others: whoever has no row in
`users` yet is passed over, a streak begins anew without its state, and none of that is found again. So nothing is done
then. Any role may read all that is asked here.
"""

from __future__ import annotations

from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine.shares import Plan, return_subscription
from audius_challenges.operation.share_tables import DERIVED, STATE, reads_of_shares
from audius_challenges.settings import Settings

_ADOPTED = AnyPlan("""
    SELECT
        share,
        epoch
    FROM audius_challenges.share_sent
""")

# Of the tables that are to be fed, and of those that must not be any more.
_SUBSCRIBED = AnyPlan("""
    SELECT
        relation.relname::text AS table_name,
        relation.relname = ANY(:derived::text[]) AS is_derived,
        subscription.subname::text AS subscription,
        subscription.subenabled AS is_enabled,
        subscribed.srsubstate::text AS state,
        subscribed.srsublsn IS NOT NULL AS is_copied
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    LEFT JOIN pg_subscription_rel AS subscribed
        ON subscribed.srrelid = relation.oid
    LEFT JOIN pg_subscription AS subscription
        ON subscription.oid = subscribed.srsubid
    WHERE relation.relkind IN ('r', 'p')
        AND (
            (namespace.nspname = :schema::text AND relation.relname = ANY(:tables::text[]))
            OR (namespace.nspname = 'audius_challenges' AND relation.relname = ANY(:state::text[]))
        )
    ORDER BY
        relation.relname,
        subscription.subname
""")

# A slot on this server is what keeps the rows that the primary has not received yet.
_SURROUNDINGS = AnyPlan("""
    SELECT
        (
            SELECT max(number) - min(number) + 1 > count(*)
            FROM audius_challenges.share_beat
        ) AS has_gap,
        (
            SELECT array_agg(coalesce(slot.wal_status, 'unknown'))
            FROM pg_replication_slots AS slot
            WHERE slot.slot_name = :slot::text
                AND slot.slot_type = 'logical'
                AND slot.database = current_database()
        ) AS slot,
        current_setting('session_replication_role') AS replication_role
""")

# Statement-level, after the fact, with what was written; 4 is INSERT, 16 is UPDATE, and there is nothing else in it.
_TRIGGERS = AnyPlan("""
    SELECT
        relation.relname::text AS table_name,
        trigger.tgname::text AS name,
        trigger.tgenabled::text AS enabled,
        CASE
            WHEN trigger.tgfoid <> 'audius_challenges.send_share()'::regprocedure THEN ''
            WHEN trigger.tgqual IS NOT NULL OR trigger.tgattr::text <> '' OR trigger.tgnewtable IS NULL THEN ''
            WHEN trigger.tgtype = 4 THEN 'INSERT'
            WHEN trigger.tgtype = 16 THEN 'UPDATE'
            ELSE ''
        END AS event
    FROM pg_trigger AS trigger
    INNER JOIN pg_class AS relation
        ON relation.oid = trigger.tgrelid
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    WHERE namespace.nspname = :schema::text
        AND relation.relname = ANY(:derived::text[])
        AND NOT trigger.tgisinternal
    ORDER BY
        relation.relname,
        trigger.tgname
""")


def why_not(db: Database, settings: Settings, plan: Plan | None) -> list[str]:
    """Why this node does nothing, each reason in a text for people; nothing: it may work.

    :param plan: as it has arrived here; None: none has
    """
    return [
        *_why_not_by_sources(db, settings),
        *_why_not_by_plan(db, settings, plan),
        *_why_not_by_return(db, settings),
    ]


def _why_not_by_sources(db: Database, settings: Settings) -> list[str]:
    """What keeps the tables from being one moment of the primary."""
    if settings.share is None:
        return ["audius_challenges.share is not set, though audius_challenges.share_plan is subscribed to"]
    found = db.rows(
        _SUBSCRIBED, schema=db.schema, tables=list(reads_of_shares()), state=list(STATE), derived=list(DERIVED)
    )
    fed = [row for row in found if row["subscription"] is not None]
    if not any(not row["is_derived"] for row in fed):
        return ["the tables are not fed by any subscription"]
    reasons = []
    for row in found:
        if row["subscription"] is None:
            if not row["is_derived"]:
                reasons.append(f"table {row['table_name']} is in no subscription")
        elif row["state"] != "r":
            reasons.append(f"table {row['table_name']} is still being copied (state {row['state']})")
        elif not row["is_copied"]:
            reasons.append(f"table {row['table_name']} was subscribed to without a copy")
    present = {row["table_name"] for row in found}
    reasons += [f"table {name} does not exist" for name in reads_of_shares() if name not in present]
    subscriptions = {row["subscription"]: row["is_enabled"] for row in fed}
    if len(subscriptions) > 1:
        reasons.append(
            f"{len(subscriptions)} subscriptions feed the tables, it must be one: {', '.join(sorted(subscriptions))}"
        )
    reasons += [f"subscription {name} is disabled" for name, is_enabled in subscriptions.items() if not is_enabled]
    return reasons


def _why_not_by_plan(db: Database, settings: Settings, plan: Plan | None) -> list[str]:
    """What keeps it from knowing what to go on from."""
    share = settings.share
    if plan is None:
        return ["no plan of shares has arrived"]
    if not plan.shares:
        return ["the plan has no shares: the primary does everything"]
    reasons = []
    if share is not None and share.of != plan.shares:
        reasons.append(f"the plan is of {plan.shares} shares, this node is {share}")
    adopted = next(iter(db.rows(_ADOPTED)), {"share": None, "epoch": None})
    if adopted["epoch"] != plan.epoch:
        reasons.append(
            f"the user challenges of epoch {plan.epoch} have not been adopted (adopted: {adopted['epoch'] or 'none'})"
        )
    elif share is not None and adopted["share"] != str(share):
        reasons.append(f"the user challenges of share {adopted['share']} have been adopted, this node is {share}")
    return reasons


def _why_not_by_return(db: Database, settings: Settings) -> list[str]:
    """What would be lost: changes on the way here, and rows on the way back."""
    if settings.share is None:
        return []
    slot = return_subscription(settings.share)
    found = db.row(_SURROUNDINGS, slot=slot)
    reasons = []
    if found["has_gap"]:
        reasons.append("beats of the primary are missing, so changes were lost")
    if not found["slot"]:
        reasons.append(f"the return path has no slot ({slot}): the primary is not subscribed to this node")
    elif found["slot"] == ["lost"]:
        reasons.append(f"slot {slot} is lost: what was sent back has not arrived")
    if found["replication_role"] == "replica":
        reasons.append("session_replication_role is replica: what is written would not be sent back")
    return reasons + _why_not_by_triggers(db)


def _why_not_by_triggers(db: Database) -> list[str]:
    """What would send too little, or tell users of what the primary tells them, too."""
    found = db.rows(_TRIGGERS, schema=db.schema, derived=list(DERIVED))
    reasons = []
    sending = {(row["table_name"], row["event"]): row for row in found if row["event"]}
    for table in DERIVED:
        for event in ("INSERT", "UPDATE"):
            row = sending.get((table, event))
            if row is None:
                reasons.append(f"the trigger that sends back is missing on {table}, AFTER {event}")
            elif row["enabled"] != "O":
                state = "disabled" if row["enabled"] == "D" else "enabled for what is copied"
                reasons.append(f"trigger {row['name']} on {table} is {state}")
    reasons += [
        f"there is another trigger on {row['table_name']}, {row['name']}, which fires on the primary as well"
        for row in found
        if not row["event"] and row["enabled"] != "D"
    ]
    return reasons
