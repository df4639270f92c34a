"""Checks of the doctor: whether the tables, the catalog and the rows are as runs and disbursers need them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audius_challenges.challenges import CHALLENGES, RANKED
from audius_challenges.contract import existing_indexes
from audius_challenges.engine.scores import IS_A_SCORE, VERSION, is_of_the_week
from audius_challenges.engine.writing import NEXT_COMPLETED_BLOCKNUMBER, PLAUSIBLE
from audius_challenges.errors import ChallengeError
from audius_challenges.operation.catalog_sync import ENVIRONMENTS, compare_catalog, lacks
from audius_challenges.operation.findings import CRITICAL, NOTICE, WARNING, Examined, Finding
from audius_challenges.operation.triggers import triggers_on, without_comments
from audius_challenges.sources import HELPFUL_INDEXES, NEEDED_INDEXES, TABLES, Index

# Pages of user_challenges (80 MB) beyond which it is not read without an index.
MOST_PAGES = 10_000

# Pages of a table from which on statistics matter.
MANY_PAGES = 1000

# Pages of a table (8 MB) from which on it is worth another index.
PAGES_WORTH_AN_INDEX = 1000

# Rows are counted up to so many.
MOST_COUNTED = 1000

LOCKS = "; the table is partitioned, so writers wait until the index is built"

BY_BLOCK = Index("user_challenges", "completed_blocknumber", where="is_complete")

# Of a partitioned table what its parts have in all; nothing analyzes it by itself.
_TABLE = """
    SELECT
        relation.relname::text AS name,
        relation.relkind = 'r' AND relation.reltuples < 0 AS is_never_analyzed,
        parts.bytes / current_setting('block_size')::bigint AS pages,
        pg_size_pretty(parts.table_bytes) AS size,
        parts.rows
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
    CROSS JOIN LATERAL (
        SELECT
            sum(pg_relation_size(stored.oid))::bigint AS bytes,
            sum(pg_table_size(stored.oid)) AS table_bytes,
            sum(greatest(stored.reltuples, 0))::bigint AS rows
        FROM (
            SELECT relation.oid
            UNION
            SELECT tree.relid
            FROM pg_partition_tree(relation.oid) AS tree
            WHERE tree.isleaf
        ) AS part
        INNER JOIN pg_class AS stored
            ON part.oid = stored.oid
        WHERE stored.relkind = 'r'
    ) AS parts
    WHERE relation.relname = ANY(:tables::text[])
        AND relation.relkind IN ('r', 'p')
    ORDER BY relation.relname
"""


_WAITING = """
    SELECT state.challenge_id
    FROM audius_challenges.processor_state AS state
    WHERE NOT state.is_asked_for
    ORDER BY state.challenge_id COLLATE "C"
"""


def _rows_that(condition: str) -> str:
    """SQL that counts complete rows by challenge, up to a number in all."""
    return f"""
    SELECT
        bad.challenge_id,
        count(*) AS number
    FROM (
        SELECT user_challenges.challenge_id::text
        FROM discovery.user_challenges
        WHERE user_challenges.is_complete
            AND {condition}
        LIMIT {MOST_COUNTED}
    ) AS bad
    GROUP BY bad.challenge_id
    ORDER BY bad.challenge_id
"""


_WITHOUT_BLOCK = _rows_that("user_challenges.completed_blocknumber IS NULL")
_ABOVE_BLOCK = _rows_that("user_challenges.completed_blocknumber > :limit::bigint")

_SET_ASIDE = """
    SELECT
        aside.challenge_id,
        count(DISTINCT aside.user_id) AS users,
        min(aside.user_id) AS example,
        (array_agg(aside.error ORDER BY aside.user_id))[1] AS error
    FROM audius_challenges.set_aside AS aside
    GROUP BY aside.challenge_id
    ORDER BY aside.challenge_id
"""

_SCORES = {"track_trending_scores": ("TRACKS", "UNDERGROUND_TRACKS"), "playlist_trending_scores": ("PLAYLISTS",)}


def _scores(table: str, score_type: str) -> str:
    of_the_week = f"SELECT FROM discovery.{table} AS scores WHERE {is_of_the_week(score_type)}"
    return f"""
    SELECT
        EXISTS ({of_the_week} AND scores.score >= 'Infinity') AS has_infinite,
        EXISTS ({of_the_week}) AND NOT EXISTS ({of_the_week} AND {IS_A_SCORE}) AS has_none
"""


# Since the first that was paid.
_UNPAID_FRIDAYS = """
    SELECT
        count(*) AS number,
        max(friday)::date::text AS latest
    FROM (
        SELECT min(trending_results.week)::timestamp AS first_paid
        FROM discovery.trending_results
        WHERE trending_results.type::text = :ranked_type::text
            AND trending_results.version::text = :version::text
            AND extract(isodow FROM trending_results.week) = 5
    ) AS known
    CROSS JOIN LATERAL generate_series(
        known.first_paid, clock_timestamp() AT TIME ZONE 'UTC' - interval '6 hours', '7 days'
    ) AS friday
    WHERE NOT EXISTS (
            SELECT FROM discovery.trending_results
            WHERE trending_results.type::text = :ranked_type::text
                AND trending_results.version::text = :version::text
                AND trending_results.week = friday::date
        )
        AND NOT EXISTS (
            SELECT FROM audius_challenges.unpaid_friday AS decided
            WHERE decided.challenge_id = :challenge_id::text
                AND decided.week = friday::date
        )
"""

_LEADING = """
    SELECT
        attribute.attname::text AS name,
        method.amname::text AS method
    FROM pg_index AS built
    INNER JOIN pg_class AS index
        ON index.oid = built.indexrelid
    INNER JOIN pg_am AS method
        ON method.oid = index.relam
    INNER JOIN pg_class AS relation
        ON relation.oid = built.indrelid
        AND relation.relname = 'notification'
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
    INNER JOIN pg_attribute AS attribute
        ON attribute.attrelid = built.indrelid
        AND attribute.attnum = built.indkey[0]
    WHERE built.indisvalid
"""

_LOOKUP = re.compile(r"\bfrom\s+(?:\w+\.)?notification\b([^;]*)", re.IGNORECASE)
_COMPARED = re.compile(r"\b(?:(\w+)\.)?(\w+)\s*(=|@>)")


def restore(examined: Examined) -> Iterator[Finding]:
    """What keeps ticks from doing anything: what looks like a restore."""
    if found := examined.surroundings.why_restoring(examined.db):
        reason, hint = found
        accepts = "reconcile_challenges" in hint
        statement = f"SELECT * FROM {examined.home}.reconcile_challenges();" if accepts else ""
        yield Finding(CRITICAL, "ticks take the database for one that is being restored", reason, hint, statement)


def tables(examined: Examined) -> Iterator[Finding]:
    """Tables and columns of active challenges that are missing, or are none."""
    found: dict[str, tuple[ChallengeError, list[str]]] = {}
    for processor in CHALLENGES:
        if not examined.is_active(processor.id):
            continue
        try:
            examined.contract.require(processor.reads)
        except ChallengeError as error:
            found.setdefault(error.message, (error, []))[1].append(processor.id)
    for wrong, challenges in found.values():
        yield Finding(
            CRITICAL,
            f"the tables are not as challenges need them: {', '.join(challenges)}",
            wrong.message,
            " ".join(filter(None, (wrong.detail, wrong.hint))),
            _add_key(examined) if wrong.message.startswith("no primary key") else "",
        )


def _add_key(examined: Examined) -> str:
    """SQL that gives tables the keys that they lack."""
    return " ".join(
        f"ALTER TABLE {examined.home}.{table} ADD PRIMARY KEY ({', '.join(TABLES[table].key)});"
        for table in examined.contract.keyless
    )


def catalog(examined: Examined) -> Iterator[Finding]:
    """Challenges that wait, and rows of the catalog that differ from those of the environment that is nearest.

    Which environment it is, is a guess: no statement changes a row so that more is paid, or older deeds, or sooner.
    A node has them from the primary.
    """
    db = examined.db
    if examined.role.is_node:
        return
    if waiting := db.rows(_WAITING):
        ids = ",".join(row["challenge_id"] for row in waiting)
        yield Finding(
            NOTICE,
            "challenges wait to be asked for",
            ids,
            "an update has brought them, and somebody else may be paying them; when nobody is: pass over what is there",
            f"SELECT * FROM audius_challenges.start_from_now('{{{ids}}}');",
        )
    # Those that wait are not in it.
    if not examined.catalog:
        return
    if lacking := lacks(examined.contract):
        expected = f"all columns of the catalog, so that it can be compared with its reference. {lacking.hint or ''}"
        yield Finding(NOTICE, "the catalog cannot be compared with its reference", lacking.message, expected.rstrip())
        return
    nearest, differences = min(
        ((environment, compare_catalog(db, environment, schema=examined.home)) for environment in ENVIRONMENTS),
        key=lambda compared: len(compared[1]),
    )
    for one in differences:
        if not one.missing and one.id not in examined.catalog:
            continue
        if one.missing:
            expected = f"the row of {nearest}, the nearest environment, unless it was retired: {one.details}"
            yield Finding(NOTICE, f'challenge "{one.id}" is not in the catalog', "no row", expected, one.correction)
            continue
        what = f'challenge "{one.id}" differs from the catalog'
        try:
            _ = examined.catalog[one.id].amount
        except ChallengeError as error:
            yield Finding(CRITICAL, what, error.message, str(error.detail), one.correction_of(["amount"]))
            continue
        left = one.generous
        others = [name for name in one.changes if name not in left]
        expected = f"what {nearest} has, the nearest environment, unless it was changed on purpose"
        if left:
            expected += f"; whether to change {', '.join(left)} is yours to decide"
        yield Finding(NOTICE, what, one.details, expected, one.correction_of(others) if others else "")


def block_numbers(examined: Examined) -> Iterator[Finding]:
    """Complete rows that a disburser never finds, or that hide others from him; he reads none of a node's."""
    db = examined.db
    if examined.role.is_node or "completed_blocknumber" not in examined.contract.columns.get("user_challenges", {}):
        return
    tables = db.rows(_TABLE, schema=db.schema, tables=["user_challenges"])
    if tables and tables[0]["pages"] > MOST_PAGES and not existing_indexes(db, [BY_BLOCK]):
        yield Finding(
            NOTICE,
            "not checked: block numbers of complete rows",
            f"user_challenges has {tables[0]['size']}, and no index on completed_blocknumber of complete rows",
            "such an index, by which these are found at once; or now and then the column unpayable_rows of"
            " challenge_status, which reads all rows" + _lock(examined, "user_challenges"),
            _create(examined, BY_BLOCK),
        )
        return
    present = db.value(NEXT_COMPLETED_BLOCKNUMBER)
    expected = "the present block, where it has not been paid, so that disbursers find it; see"
    for row in db.rows(_WITHOUT_BLOCK):
        yield Finding(
            WARNING,
            f'rows of challenge "{row["challenge_id"]}" are complete without a block number, and never paid',
            _counted(row["number"]),
            f"{expected} docs/how-to/repair-unpayable-rows.md",
            _repair(examined, row["challenge_id"], "IS NULL", present),
        )
    if not present:
        return
    for row in db.rows(_ABOVE_BLOCK, limit=present + PLAUSIBLE):
        yield Finding(
            WARNING,
            f'rows of challenge "{row["challenge_id"]}" have absurd block numbers, which carry cursors away',
            f"{_counted(row['number'])} above {present + PLAUSIBLE}",
            f"{expected} docs/how-to/repair-unpayable-rows.md",
            _repair(examined, row["challenge_id"], f"> {present + PLAUSIBLE}", present),
        )


def _counted(number: int) -> str:
    if number >= MOST_COUNTED:
        return f"{number} rows or more"
    return "1 row" if number == 1 else f"{number} rows"


def _repair(examined: Examined, challenge_id: str, condition: str, present: int) -> str:
    """SQL that gives rows the present block, and those that were paid 0, which is below every cursor."""
    home = examined.home
    paid = " OR ".join(
        f"EXISTS (SELECT FROM {home}.{table} AS paid WHERE paid.challenge_id = earned.challenge_id"
        " AND paid.specifier = earned.specifier)"
        for table in ("challenge_disbursements", "sol_reward_disbursements")
        if table in examined.contract.columns
    )
    number = f"CASE WHEN {paid} THEN 0 ELSE {present} END" if paid else str(present)
    return (
        f"UPDATE {home}.user_challenges AS earned SET completed_blocknumber = {number}"
        f" WHERE challenge_id = {examined.literal(challenge_id)} AND is_complete AND completed_blocknumber {condition};"
    )


def users_set_aside(examined: Examined) -> Iterator[Finding]:
    """Users whose rows cannot be written."""
    for row in examined.db.rows(_SET_ASIDE):
        yield Finding(
            WARNING,
            f'users of challenge "{row["challenge_id"]}" are set aside: their rows cannot be written',
            f"{row['users']} in all; user {row['example']}: {row['error']}",
            "their rows are mended; they are tried again then. See docs/how-to/users-set-aside.md",
        )


def scores(examined: Examined) -> Iterator[Finding]:
    """Trending scores that are none."""
    ranked_by = {score_type: challenge_id for challenge_id, score_type in RANKED.items()}
    for table, types in _SCORES.items():
        if table not in examined.contract.columns:
            continue
        for score_type in types:
            challenge = examined.catalog.get(ranked_by[score_type])
            if not (challenge and challenge.active):
                continue
            found = examined.db.row(_scores(table, score_type))
            expected = "finite numbers above 0, from whatever computes the scores"
            if found["has_none"]:
                what = f"{table} has no score of {score_type} that counts, so no Friday is paid"
                yield Finding(WARNING, what, "all are 0, negative, infinite, NaN, or of the future", expected)
            elif found["has_infinite"]:
                what = f"{table} has scores of {score_type} that do not count"
                yield Finding(WARNING, what, "NaN or infinite", expected)


def fridays(examined: Examined) -> Iterator[Finding]:
    """Weeks of trending that were not paid."""
    if "trending_results" not in examined.contract.columns:
        return
    for challenge_id, ranked_type in RANKED.items():
        challenge = examined.catalog.get(challenge_id)
        if not (challenge and challenge.active):
            continue
        unpaid = examined.db.row(_UNPAID_FRIDAYS, ranked_type=ranked_type, version=VERSION, challenge_id=challenge_id)
        if unpaid["number"]:
            yield Finding(
                WARNING,
                f'Fridays of challenge "{challenge_id}" are not paid, and will not be without you',
                f"{unpaid['number']} in all, the latest {unpaid['latest']}",
                "pay them, or give them up: docs/how-to/past-friday.md",
            )


def indexes(examined: Examined) -> Iterator[Finding]:
    """Indexes that challenges need, or that would help active ones with a table of some size."""
    db = examined.db
    there = existing_indexes(db, (*NEEDED_INDEXES, *HELPFUL_INDEXES))
    helped = db.rows(_TABLE, schema=db.schema, tables=[index.table for index in HELPFUL_INDEXES])
    large = {row["name"] for row in helped if row["pages"] > PAGES_WORTH_AN_INDEX}
    for index in (*NEEDED_INDEXES, *HELPFUL_INDEXES):
        columns = examined.contract.columns.get(index.table, {})
        if index in there or index.column not in columns or index.table in examined.contract.views:
            continue
        is_needed = index in NEEDED_INDEXES
        if not is_needed and not (index.table in large and _helps(examined, index)):
            continue
        yield Finding(
            WARNING if is_needed else NOTICE,
            f"no index on {index.table} ({index.column})",
            "runs read the whole table" if is_needed else "some changes are found by the sweep only, so later",
            (
                "production has such an index"
                if is_needed
                else "an index that helps, if its cost when rows are written is worth it"
            )
            + _lock(examined, index.table),
            _create(examined, index),
        )


def _helps(examined: Examined, index: Index) -> bool:
    """Whether an active challenge reads what the index leads by."""
    led_by = {index.column, *index.where.split()[:1]}
    return any(
        led_by <= processor.reads.get(index.table, frozenset()) and examined.is_active(processor.id)
        for processor in CHALLENGES
    )


def _create(examined: Examined, index: Index) -> str:
    """SQL that creates an index as its table takes it."""
    return index.statement(examined.home, at_once=index.table in examined.partitioned)


def _lock(examined: Examined, table: str) -> str:
    """What has to be said of creating an index on a table."""
    return LOCKS if table in examined.partitioned else ""


def statistics(examined: Examined) -> Iterator[Finding]:
    """Tables of some size that PostgreSQL has never analyzed, so that it plans blindly."""
    db = examined.db
    for row in db.rows(_TABLE, schema=db.schema, tables=list(TABLES)):
        if row["is_never_analyzed"] and row["pages"] > MANY_PAGES:
            yield Finding(
                WARNING,
                f"{row['name']} was never analyzed, so runs may be planned badly",
                f"{row['size']}, and no statistics",
                "autovacuum analyzes it: see whether it is on, for the server and for the table",
                f"ANALYZE {examined.home}.{row['name']};",
            )


def notifications(examined: Examined) -> Iterator[Finding]:
    """What each completed reward searches in `notification` without an index."""
    db = examined.db
    tables = db.rows(_TABLE, schema=db.schema, tables=["notification"])
    if not tables:
        return
    columns = examined.contract.columns.get("notification", {})
    leading = {(row["name"], row["method"]) for row in db.rows(_LEADING, schema=db.schema)}
    for trigger in triggers_on(db, "user_challenges"):
        for lookup in _LOOKUP.findall(without_comments(trigger["source"])):
            compared = _COMPARED.findall(lookup)
            # What the row of user_challenges has is not compared with itself.
            known = [
                (name, sign) for of, name, sign in compared if of.lower() not in ("new", "old") and name in columns
            ]
            if not compared or any((name, "gin" if sign == "@>" else "btree") in leading for name, sign in known):
                continue
            yield Finding(
                WARNING if tables[0]["pages"] > MOST_PAGES else NOTICE,
                f"trigger {trigger['name']} searches notification for each completed reward without an index",
                *_index_for(examined, f"{tables[0]['rows']} rows ({tables[0]['size']})", known, len(compared)),
            )


def _index_for(examined: Examined, size: str, known: list[tuple[str, str]], compared: int) -> tuple[str, str, str]:
    """What is searched, what would do, and SQL of it if all that is compared are columns of `notification`."""
    if len(known) < compared:
        return size, "an index that its search can use; its text does not tell by which column", ""
    name, sign = next((each for each in known if each[1] == "@>"), known[0])
    kind = f"USING gin ({name})" if sign == "@>" else f"({name})"
    concurrently = "" if "notification" in examined.partitioned else "CONCURRENTLY "
    return (
        f"{size}, by {name}",
        f"an index {kind}{_lock(examined, 'notification')}",
        f"CREATE INDEX {concurrently}ON {examined.home}.notification {kind};",
    )
