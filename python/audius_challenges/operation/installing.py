"""What CREATE EXTENSION does beyond its own objects: fill the catalog, schedule, and say what it did."""

from __future__ import annotations

from audius_challenges.contract import Contract, read_contract
from audius_challenges.database import Database
from audius_challenges.errors import describe
from audius_challenges.operation.catalog_sync import align_catalog, compare_catalog, is_empty, lacks
from audius_challenges.operation.replication import is_fed, publications, subscriptions
from audius_challenges.operation.scheduling import has_pg_cron, how_to_get_pg_cron, schedule, unschedule
from audius_challenges.settings import PREFIX, unknown_settings, warn_of


def install(db: Database) -> None:
    """In a discovery database: fill an empty catalog, and schedule if nobody has been paying yet. Warn of what is
    beside it: settings with unknown names, publications, subscriptions.

    In a database without the discovery tables (an empty one, or one that is just being restored) it does nothing.
    """
    contract = read_contract(db)
    if not contract.has_discovery_tables:
        db.plpy.notice(
            f"there are no discovery tables in schema {db.schema}: only the extension's objects were created"
        )
        return
    warn_of(db, unknown_settings(db))
    for remark in publications(db):
        db.plpy.warning(remark.message, hint=remark.hint)
    written = subscriptions(db)
    for remark in written:
        db.plpy.warning(remark.message, hint=remark.hint)
    if written:
        db.plpy.notice("nothing was inserted into challenges, and nothing was scheduled")
    elif not _gets_its_sources(db) and _fill_catalog(db, contract) and not _is_paid(db):
        if has_pg_cron(db):
            _schedule(db)
            return
        db.plpy.notice(
            "pg_cron is not installed in this database: nothing was scheduled",
            hint=how_to_get_pg_cron(db),
        )
    _unschedule(db)


def _unschedule(db: Database) -> None:
    """Remove jobs that DROP EXTENSION has left: they would tick before anybody has looked."""
    if has_pg_cron(db) and (jobs := unschedule(db)):
        names = ", ".join(job["jobname"] for job in jobs)
        db.plpy.notice(f"removed the schedule of an earlier installation: {names}")


def _gets_its_sources(db: Database) -> bool:
    """Whether another server sends the sources, or is to; if so, say what is left to do."""
    if set_to := db.value("SELECT nullif(trim(current_setting('audius_challenges.share', TRUE)), '')"):
        db.plpy.notice(
            f"this database is to be a node of shares ({PREFIX}share is {set_to}): nothing was inserted into"
            " challenges, and nothing was scheduled",
            hint="When SELECT audius_challenges.share_why_not(); returns no row: SELECT * FROM schedule_challenges();",
        )
        return True
    if is_fed(db):
        db.plpy.notice(
            "table users comes by a subscription: nothing was inserted into challenges, and nothing was scheduled",
            hint="If this database is to run challenges itself, wait until no table is being copied"
            " (pg_subscription_rel.srsubstate is r); then fill challenges, and SELECT * FROM schedule_challenges();",
        )
        return True
    return False


def _is_paid(db: Database) -> bool:
    """Whether somebody else may be paying; if so, say what to do."""
    if not db.value("SELECT EXISTS (SELECT FROM discovery.user_challenges)"):
        return False
    db.plpy.notice(
        "user_challenges is not empty, so another service may be paying: nothing was scheduled",
        hint="Follow docs/how-to/adopt.md: a dry run, audius_challenges.start_from_now(), stop the other service,"
        " schedule_challenges().",
    )
    return True


def _fill_catalog(db: Database, contract: Contract) -> bool:
    """Fill an empty catalog, and say where another one differs; whether that could be done."""
    if error := lacks(contract):
        db.plpy.warning(
            f"nothing was inserted into challenges, and nothing was scheduled: {error.message}",
            hint=f"{error.hint or 'Add what is missing.'} Then DROP EXTENSION audius_challenges; and create it again."
            f" If the tables are those of share_tables(), nothing is missing: set {PREFIX}share for this database"
            " before that, and do it in a new session.",
        )
        return False
    differences = compare_catalog(db, "prod")
    if is_empty(db):
        align_catalog(db, "prod", differences)
        db.plpy.notice(f"inserted into challenges: {', '.join(one.id for one in differences)}")
        return True
    for one in differences:
        if one.missing:
            db.plpy.notice(
                f'challenge "{one.id}" is not in the catalog and was not inserted: it may have been retired',
                hint=f"If you want it: {one.correction}",
            )
        else:
            db.plpy.notice(
                f'challenge "{one.id}" differs from the catalog of prod and was not changed ({one.details})',
                hint=one.correction,
            )
    return True


def _schedule(db: Database) -> None:
    try:
        with db.plpy.subtransaction():
            jobs = schedule(db, "30 seconds")
    except Exception as error:  # noqa: BLE001 - whatever is wrong with pg_cron, the extension is created
        hint = "Run SELECT * FROM schedule_challenges(); later."
        db.plpy.warning(f"nothing was scheduled: {describe(error)}", hint=hint)
        return
    for job in jobs:
        db.plpy.notice(f"scheduled: {job['command']} ({job['schedule']})")
