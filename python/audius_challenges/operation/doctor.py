"""The doctor: what keeps ticks from coming, or makes runs slow or wrong, and the statement that mends it.

A check is a function that yields findings. Each has a subtransaction of its own: a check that cannot be made is a
finding, and the others are made. None reads a large table without an index for what it looks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from audius_challenges.database import Database
from audius_challenges.errors import INSUFFICIENT_PRIVILEGE, describe, is_operator_intervention, sqlstate_of
from audius_challenges.operation import (
    checks_of_data,
    checks_of_replication,
    checks_of_roles,
    checks_of_shares,
    checks_of_ticks,
)
from audius_challenges.operation.findings import NOTICE, OK, SEVERITIES, WARNING, Examined, Finding

Check = Callable[[Examined], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "what looks like a restore": checks_of_data.restore,
    "the guard of this node": checks_of_shares.on_a_node,
    "ticks": checks_of_ticks.stillness,
    "jobs": checks_of_ticks.jobs,
    "challenges that fail": checks_of_ticks.failures,
    "tables": checks_of_data.tables,
    "privileges": checks_of_roles.privileges,
    "privileges for triggers": checks_of_roles.trigger_privileges,
    "row-level security": checks_of_roles.row_security,
    "settings": checks_of_roles.settings,
    "statement_timeout": checks_of_roles.statement_timeout,
    "the catalog": checks_of_data.catalog,
    "block numbers of complete rows": checks_of_data.block_numbers,
    "users set aside": checks_of_data.users_set_aside,
    "scores": checks_of_data.scores,
    "Fridays": checks_of_data.fridays,
    "indexes": checks_of_data.indexes,
    "statistics": checks_of_data.statistics,
    "notifications": checks_of_data.notifications,
    "old transactions": checks_of_ticks.old_transactions,
    "helpers": checks_of_ticks.helpers,
    "prepared transactions": checks_of_ticks.prepared_transactions,
    "replication slots": checks_of_ticks.replication_slots,
    "logical replication": checks_of_replication.logical_replication,
    "writers of published tables": checks_of_replication.writers,
    "nodes of shares": checks_of_shares.on_the_primary,
    "slots of shares": checks_of_replication.slots,
    "copies for subscribers": checks_of_replication.copies,
    "the version": checks_of_ticks.version,
}


# Statements that a standby runs, too.
ON_A_STANDBY = re.compile(r"SELECT pg_terminate_backend\(\d+\);|RESET [^;]+;")


def examine(db: Database) -> list[Finding]:
    """What is found, the worst first; if nothing is, one finding says so."""
    examined = Examined(db)
    findings = [finding for title, check in CHECKS.items() for finding in _made(examined, title, check)]
    if not findings:
        return [Finding(OK, "everything", f"{len(CHECKS)} checks have found nothing", "")]
    if db.value("SELECT pg_is_in_recovery()"):
        findings = [_as_on_a_standby(finding) for finding in findings]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _as_on_a_standby(finding: Finding) -> Finding:
    """The same without a statement that writes: that is for the primary."""
    if not finding.statement or ON_A_STANDBY.fullmatch(finding.statement):
        return finding
    return replace(finding, expected=f"{finding.expected}; on the primary: {finding.statement}", statement="")


def _made(examined: Examined, title: str, check: Check) -> list[Finding]:
    """The findings of one check, or the one that it cannot be made."""
    db = examined.db
    try:
        with db.plpy.subtransaction():
            return list(check(examined))
    except Exception as error:
        if is_operator_intervention(error):
            raise
        what = f"not checked: {title}"
        if sqlstate_of(error) == INSUFFICIENT_PRIVILEGE:
            role = db.value("SELECT quote_literal(current_user)")
            statement = f"SELECT audius_challenges.grant_status({role});"
            return [Finding(NOTICE, what, describe(error), "a role that may look", statement)]
        return [Finding(WARNING, what, describe(error), "what else is found here is mended first")]
