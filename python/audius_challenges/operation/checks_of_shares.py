"""Checks of the doctor: whether nodes work, and what they send arrives; on a node, why it does nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from audius_challenges.engine.shares import REJOIN, REPLAN, how_to_mend, return_subscription, share_publication
from audius_challenges.operation.findings import CRITICAL, WARNING, Examined, Finding
from audius_challenges.operation.share_guard import why_not
from audius_challenges.operation.share_joining import OBSTACLES, TRIGGERS
from audius_challenges.operation.share_status import (
    DISABLED,
    GAP,
    MISSING,
    NO_WORKER,
    SILENT,
    STOPPED,
    ShareStatus,
)
from audius_challenges.settings import PREFIX, Share, read_settings

# Batches that may wait on the primary: a tick writes hundreds.
MANY_BATCHES = 1000

PAGE = 'docs/reference/functions.md, "Functions of shares"'

_RECEIVING = """
    SELECT
        subscription.subname::text AS name,
        quote_ident(subscription.subname) AS quoted
    FROM pg_subscription AS subscription
    INNER JOIN pg_subscription_rel AS filled
        ON filled.srsubid = subscription.oid
    WHERE subscription.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND filled.srrelid = 'audius_challenges.share_batch'::regclass
        AND subscription.subname <> ALL(:expected::text[])
    ORDER BY subscription.subname
"""

_FEEDING = """
    SELECT subscription.subname::text AS name
    FROM pg_subscription AS subscription
    INNER JOIN pg_subscription_rel AS fed
        ON fed.srsubid = subscription.oid
    WHERE fed.srrelid = 'audius_challenges.share_plan'::regclass
    ORDER BY subscription.subname
"""

_STATISTICS = """
    SELECT format('SELECT pg_stat_reset_subscription_stats(%s);', subscription.oid) AS statement
    FROM pg_subscription AS subscription
    WHERE subscription.subname = :name::text
        AND subscription.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

# What fails is begun again every few seconds. A restart of the other server counts as a failure, too.
STEADY = 60
"""A worker that has run for so many seconds has not failed again."""

_IS_STEADY = """
    SELECT EXISTS (
        SELECT FROM pg_stat_subscription AS subscription
        INNER JOIN pg_stat_activity AS worker
            ON subscription.pid = worker.pid
        WHERE subscription.subname = :name::text
            AND subscription.relid IS NULL
            AND worker.backend_start < clock_timestamp() - :seconds::float8 * interval '1 second'
    )
"""

_BEGIN_ANEW = f"the node begins anew, with a copy: {PAGE}"


def on_the_primary(examined: Examined) -> Iterator[Finding]:
    """Whether each node works, and what it sends arrives and is written."""
    role = examined.role
    if not role.is_hub or role.plan is None:
        return
    shares = [Share(number, role.plan.shares) for number in range(role.plan.shares)]
    for share, row in zip(shares, examined.shares, strict=True):
        yield from _of_node(row)
        yield from _of_subscription(examined, row, return_subscription(share), f"receive_share('{share}', '...')")
    expected = [return_subscription(share) for share in shares]
    for other in examined.db.rows(_RECEIVING, expected=expected):
        yield Finding(
            WARNING,
            "a subscription receives a share that the plan does not have",
            f'subscription "{other["name"]}", the plan is of {role.plan.shares} shares',
            f"one for each share; if its node is gone, first ALTER SUBSCRIPTION {other['quoted']} DISABLE; and ALTER"
            f" SUBSCRIPTION {other['quoted']} SET (slot_name = NONE);",
            f"DROP SUBSCRIPTION {other['quoted']};",
        )


def _how_to_mend(row: ShareStatus) -> str:
    if row.mended_by in (REPLAN, REJOIN):
        return how_to_mend(str(row.share), row.mended_by).removesuffix(".")
    return "on its node: SELECT audius_challenges.resend(); sends all once more"


def _of_node(row: ShareStatus) -> Iterator[Finding]:
    """What the primary knows of a node."""
    if row.status == GAP:
        yield Finding(
            CRITICAL,
            f"share {row.share} is not written, as some of it is missing",
            str(row.problem),
            _how_to_mend(row),
        )
    elif row.status == STOPPED:
        yield Finding(
            CRITICAL,
            f"node {row.share} does nothing",
            str(row.says),
            "what is said there is mended: SELECT * FROM audius_challenges.doctor(); on the node",
        )
    elif row.status == SILENT:
        yield Finding(
            CRITICAL,
            f"node {row.share} is silent",
            f"its last tick that is known of ended at {row.last_beat}",
            "it ticks, and is received here: see its challenge_status, and the subscription here; if it is gone for"
            f" good: {PAGE}",
        )
    elif row.status == MISSING:
        yield Finding(
            CRITICAL,
            f"nothing has come of node {row.share}",
            f"no beat since the plan changed (epoch {row.plan})",
            f"it joins, adopts its users' rows, and ticks: {PAGE}. Or the primary does everything again: SELECT"
            " audius_challenges.plan_shares(0);",
        )
    if row.slot == MISSING and row.status != MISSING:
        yield Finding(
            CRITICAL,
            f"node {row.share} is not fed",
            "it follows this server by no replication slot, so what changes now is lost to it",
            f"a node that is fed by a standby has its slot there; otherwise {_BEGIN_ANEW}",
        )
    if (row.waiting_batches or 0) > MANY_BATCHES and row.status != GAP:
        yield Finding(
            WARNING,
            f"what node {row.share} sends piles up",
            f"{row.waiting_batches} batches of {row.waiting_rows} rows wait",
            "ticks here write them: see challenges that fail or are inactive, and audius_challenges.time_budget",
        )


def _of_subscription(examined: Examined, row: ShareStatus, name: str, made_by: str) -> Iterator[Finding]:
    """Whether what comes in is received: on either side."""
    what = f'subscription "{name}" receives nothing'
    if row.subscription == DISABLED:
        expected = "it is enabled, once what the server's log says of it is mended"
        yield Finding(CRITICAL, what, "it is disabled", expected, f"ALTER SUBSCRIPTION {name} ENABLE;")
    elif row.subscription == MISSING:
        expected = f"SELECT audius_challenges.{made_by}; prints what creates it"
        yield Finding(CRITICAL, what, "there is none", expected)
    elif row.subscription == NO_WORKER:
        yield Finding(
            WARNING,
            what,
            "it has no worker at the moment",
            "the publisher is up, and max_logical_replication_workers and max_worker_processes leave room for one: the"
            " server's log says why",
        )
    if row.apply_errors and not examined.db.value(_IS_STEADY, name=name, seconds=STEADY):
        reset = examined.db.value(_STATISTICS, name=name)
        yield Finding(
            WARNING,
            f'subscription "{name}" has failed, and tries the same again while it does',
            f"{row.apply_errors} times",
            f"the server's log says why; if it is mended, {reset} begins to count anew",
        )


def on_a_node(examined: Examined) -> Iterator[Finding]:
    """Why it does nothing, and what would stop it."""
    db = examined.db
    role = examined.role
    if not role.is_node:
        return
    for reason in why_not(db, read_settings(db), role.plan):
        expected, statement = _mend(examined, reason)
        yield Finding(CRITICAL, "this node does nothing", reason, expected, statement)
    for share in examined.shares:
        # That it is missing or disabled, the guard says.
        if role.share and share.subscription not in (MISSING, DISABLED):
            yield from _of_subscription(examined, share, share_publication(role.share), "")
        if share.status == SILENT:
            yield Finding(
                WARNING,
                "the primary is silent",
                f"its last tick that is known of ended at {share.last_beat}",
                "it ticks, and this node receives: see challenge_status there, and the subscription here",
            )
    for obstacle in OBSTACLES:
        for statement in obstacle.statements(db):
            yield Finding(WARNING, obstacle.what, f"without it: {statement}", obstacle.expected, statement)


def _mend(examined: Examined, reason: str) -> tuple[str, str]:
    """What is expected in place of what the guard says, and SQL, where it can be done here and at once."""
    for mend in _MENDS:
        if match := re.fullmatch(mend.reason, reason):
            return mend.expected, mend.statement(examined, match) if mend.statement else ""
    return f"see {PAGE}", ""


def _setting(examined: Examined, _: re.Match[str]) -> str:
    """By the name of the subscription."""
    for row in examined.db.rows(_FEEDING):
        if found := re.fullmatch(r"audius_challenges_share_(\d+)_of_(\d+)", row["name"]):
            share = f"{found[1]}/{found[2]}"
            return f"ALTER DATABASE {examined.me['database']} SET {PREFIX}share = '{share}';"
    return ""


def _enabled(examined: Examined, match: re.Match[str]) -> str:
    return f"ALTER SUBSCRIPTION {examined.ident(match['name'])} ENABLE;"


def _dropped(examined: Examined, match: re.Match[str]) -> str:
    return f"SELECT pg_drop_replication_slot({examined.literal(match['name'])});"


def _created(examined: Examined, match: re.Match[str]) -> str:
    """As join_share() prints it."""
    event = match["event"]
    return (
        f"CREATE TRIGGER {TRIGGERS[event]} AFTER {event} ON {examined.home}.{match['table']}"
        " REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION audius_challenges.send_share();"
    )


def _firing(examined: Examined, match: re.Match[str]) -> str:
    return f"ALTER TABLE {examined.home}.{match['table']} ENABLE TRIGGER {examined.ident(match['name'])};"


def _silenced(examined: Examined, match: re.Match[str]) -> str:
    return f"ALTER TABLE {examined.home}.{match['table']} DISABLE TRIGGER {examined.ident(match['name'])};"


@dataclass(frozen=True)
class _Mend:
    """What is expected in place of a reason of the guard, and SQL, where it can be done here and at once."""

    reason: str
    expected: str
    statement: Callable[[Examined, re.Match[str]], str] | None = None


_ADOPTING = (
    "SELECT audius_challenges.adopt_share('...') \\gexec copies them, and"
    " SELECT audius_challenges.finish_adoption() \\gexec begins"
)

_MENDS = (
    _Mend(
        rf"{PREFIX}share is not set, .*",
        "the share that this node is, such as 0/2; new sessions have it",
        _setting,
    ),
    _Mend(
        "the tables are not fed by any subscription|table .* is in no subscription|table .* does not exist",
        f"SELECT audius_challenges.join_share('k/N', '...') \\gexec joins a node; if it has joined, {_BEGIN_ANEW}",
    ),
    _Mend(
        "table .* is still being copied .*",
        "the copy ends; if it does not, the server's log says why: rows that were there before it, or a transaction on"
        " the primary that is open for long",
    ),
    _Mend("table .* was subscribed to without a copy", _BEGIN_ANEW),
    _Mend(
        r"\d+ subscriptions feed the tables.*",
        "after the adoption there is one: SELECT audius_challenges.finish_adoption() \\gexec drops the other; if there"
        f" are more, {_BEGIN_ANEW}",
    ),
    _Mend("subscription (?P<name>.*) is disabled", "enabled, once what the log says of it is mended", _enabled),
    _Mend("no plan of shares has arrived", "on the primary: SELECT audius_challenges.plan_shares(N);"),
    _Mend(
        "the plan has no shares: .*",
        "nothing to do here: SELECT audius_challenges.drop_shares() \\gexec makes an ordinary server of this one",
    ),
    _Mend(
        "the plan is of .* shares, this node is .*",
        "nodes of the present plan take over; then here: SELECT audius_challenges.drop_shares() \\gexec",
    ),
    _Mend("the user challenges of epoch .* have not been adopted .*", _ADOPTING),
    _Mend("the user challenges of share .* have been adopted, this node is .*", _ADOPTING),
    _Mend(
        "beats of the primary are missing.*",
        f"all of them: changes were lost, with a slot that was lost, or was made by hand; {_BEGIN_ANEW}",
    ),
    _Mend(
        "the return path has no slot .*",
        "on the primary: SELECT audius_challenges.receive_share('k/N', '...') \\gexec; then here:"
        " SELECT audius_challenges.resend();",
    ),
    _Mend(
        "slot (?P<name>.*) is lost: .*",
        "it goes, and on the primary the subscription of the same name; there"
        " SELECT audius_challenges.receive_share('k/N', '...') \\gexec; then here:"
        " SELECT audius_challenges.resend();",
        _dropped,
    ),
    _Mend("session_replication_role is replica: .*", "origin, for the role that ticks"),
    _Mend(
        "the trigger that sends back is missing on (?P<table>.*), AFTER (?P<event>INSERT|UPDATE)",
        "the triggers that join_share() creates",
        _created,
    ),
    _Mend(
        "trigger (?P<name>.*) on (?P<table>.*) is (disabled|enabled .*)",
        "it fires for what this node writes, and for nothing else",
        _firing,
    ),
    _Mend(
        "there is another trigger on (?P<table>[^,]*), (?P<name>.*), which fires on the primary as well",
        "the primary alone tells users, and whoever else listens",
        _silenced,
    ),
)
