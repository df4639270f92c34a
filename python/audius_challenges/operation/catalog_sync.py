"""The reference catalog of each environment, and how the table `challenges` is aligned with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from audius_challenges.annotations import Any
from audius_challenges.catalog import CATALOG, require_known
from audius_challenges.contract import Contract
from audius_challenges.database import Database, Row
from audius_challenges.errors import DATATYPE_MISMATCH, UNDEFINED_COLUMN, ChallengeError
from audius_challenges.settings import MAX_INTEGER

_COLUMNS = ("type", "amount", "active", "step_count", "starting_block", "weekly_pool", "cooldown_days")

_PROD: dict[str, tuple[Any, ...]] = {
    "p": ("numeric", "1", True, 7, 0, 25000, 7),
    "u": ("numeric", "1", True, 3, 25346436, 25000, 7),
    "fp": ("boolean", "2", True, None, 28350000, 25000, 7),
    "v": ("boolean", "5", True, None, 0, 25000, None),
    "e": ("aggregate", "1", False, MAX_INTEGER, 116023891, 25000, None),
    "p1": ("numeric", "25", True, 250, 0, MAX_INTEGER, 7),
    "p2": ("numeric", "100", True, 1000, 0, MAX_INTEGER, 7),
    "p3": ("numeric", "1000", True, 10000, 0, MAX_INTEGER, 7),
    "tt": ("trending", "1000", True, None, 25346436, 100000, None),
    "tut": ("trending", "1000", True, None, 25346436, 100000, None),
    "tp": ("trending", "100", True, None, 25346436, 10000, None),
    "c": ("aggregate", "1", True, MAX_INTEGER, 0, MAX_INTEGER, 7),
    "cp": ("aggregate", "10", True, MAX_INTEGER, 1979515, MAX_INTEGER, 7),
    "cs": ("aggregate", "1000", False, MAX_INTEGER, 95017582, 50000, 7),
    "w": ("aggregate", "1000", True, MAX_INTEGER, 98950182, 50000, 7),
    "t": ("aggregate", "100", True, MAX_INTEGER, 0, MAX_INTEGER, 7),
    "b": ("aggregate", "1", True, MAX_INTEGER, 220157041, 25000, 7),
    "s": ("aggregate", "5", True, MAX_INTEGER, 220157041, 25000, 7),
    "m": ("boolean", "1", True, None, 25346436, 25000, 7),
    "r": ("aggregate", "1", True, 5, 25346436, 25000, 7),
    "rv": ("aggregate", "1", True, 5000, 25346436, 25000, 7),
    "rd": ("boolean", "1", True, None, 25346436, 25000, 7),
}

_STAGE: dict[str, dict[str, Any]] = {
    "p": {"cooldown_days": 0},
    "u": {"starting_block": 0, "cooldown_days": 0},
    "e": {"active": True},
    "fp": {"starting_block": 0},
    "tt": {"starting_block": 0, "weekly_pool": 10000},
    "tut": {"starting_block": 0, "weekly_pool": 10000},
    "tp": {"starting_block": 0, "weekly_pool": 10000},
    "c": {"cooldown_days": 0},
    "cp": {"starting_block": 2718415},
    "cs": {"starting_block": 98445731},
    "w": {"starting_block": 104186138, "cooldown_days": 0},
    "b": {"starting_block": 0},
    "s": {"starting_block": 0},
    "m": {"starting_block": 0},
    "r": {"starting_block": 0},
    "rv": {"starting_block": 0},
    "rd": {"starting_block": 0},
}

# Where dev is not just stage without cooldowns.
_DEV: dict[str, dict[str, Any]] = {
    "e": {"starting_block": 0},
    "cp": {"starting_block": 0, "cooldown_days": 7},
    "cs": {"cooldown_days": 7},
    "w": {"starting_block": 0},
}

ENVIRONMENTS = ("prod", "stage", "dev")


def reference_catalog(environment: str) -> list[dict[str, Any]]:
    """The catalog rows of an environment, as the specification has them.

    :raises ChallengeError: if there is no such environment
    """
    if environment not in ENVIRONMENTS:
        raise ChallengeError(
            f'unknown environment: "{environment}"',
            hint=f"The environments are {', '.join(ENVIRONMENTS)}.",
        )
    catalog = [{"id": key, **dict(zip(_COLUMNS, values, strict=True))} for key, values in _PROD.items()]
    for row in catalog:
        if environment != "prod":
            row.update(_STAGE.get(row["id"], {}))
        if environment == "dev":
            if row["cooldown_days"] is not None:
                row["cooldown_days"] = 0
            row.update(_DEV.get(row["id"], {}))
    return catalog


_DIFFERING = """
    SELECT
        reference.*,
        to_jsonb(existing) AS existing
    FROM jsonb_to_recordset(:payload::jsonb) AS reference (
        id text,
        type text,
        amount text,
        active boolean,
        step_count integer,
        starting_block integer,
        weekly_pool integer,
        cooldown_days integer
    )
    LEFT JOIN discovery.challenges AS existing
        ON existing.id::text = reference.id
    WHERE existing.id IS NULL
        OR (
            existing.type::text,
            existing.amount::text,
            existing.active,
            existing.step_count,
            existing.starting_block,
            existing.weekly_pool,
            existing.cooldown_days
        ) IS DISTINCT FROM (
            reference.type,
            reference.amount,
            reference.active,
            reference.step_count,
            reference.starting_block,
            reference.weekly_pool,
            reference.cooldown_days
        )
"""

_COMPARE = f"""
    WITH differing AS ({_DIFFERING})
    SELECT to_jsonb(differing) AS differing
    FROM differing
"""

_ALIGN = f"""
    WITH differing AS ({_DIFFERING})
    INSERT INTO discovery.challenges AS existing
        (id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days)
    SELECT
        differing.id,
        differing.type::discovery.challengetype,
        differing.amount,
        differing.active,
        differing.step_count,
        differing.starting_block,
        differing.weekly_pool,
        differing.cooldown_days
    FROM differing
    WHERE differing.id = ANY(:challenge_ids::text[])
    ON CONFLICT (id) DO UPDATE SET
        type = excluded.type,
        amount = excluded.amount,
        active = excluded.active,
        step_count = excluded.step_count,
        starting_block = excluded.starting_block,
        weekly_pool = excluded.weekly_pool,
        cooldown_days = excluded.cooldown_days
"""


@dataclass(frozen=True)
class Difference:
    """How one catalog row differs from the reference: missing, or in which columns.

    :ivar correction: the statement that corrects just this row, or inserts it if it is missing
    :ivar changes: of a row that is there: column -> what it has, what the reference has
    :ivar table: the table of the catalog, as statements name it
    """

    id: str
    missing: bool
    details: str
    correction: str
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    table: str = ""

    def correction_of(self, names: Sequence[str]) -> str:
        """The statement that corrects these columns of this row."""
        assignments = ", ".join(f"{name} = {_literal(self.changes[name][1])}" for name in names)
        return f"UPDATE {self.table} SET {assignments} WHERE id = '{self.id}';"

    @property
    def generous(self) -> list[str]:
        """The columns by which the reference pays more than what is there, or sooner."""
        return [name for name, (existing, wanted) in self.changes.items() if _is_generous(name, existing, wanted)]


def compare_catalog(
    db: Database, environment: str, challenge_ids: Sequence[str | None] | None = None, *, schema: str = ""
) -> list[Difference]:
    """Where the catalog differs from the reference, in the reference's order; it must have all columns (`lacks`).

    :param challenge_ids: which rows to compare; None: all of the reference
    :param schema: what corrections name, quoted; empty: they go by the search_path
    :raises ChallengeError: if there is no such environment or challenge
    """
    reference = reference_catalog(environment)
    order = [row["id"] for row in reference]
    if challenge_ids is not None:
        require_known(challenge_ids, order)
        reference = [row for row in reference if row["id"] in challenge_ids]
    differing = [json.loads(row["differing"]) for row in db.rows(_COMPARE, payload=json.dumps(reference))]
    return sorted(
        (_difference(row, environment, schema and f"{schema}.") for row in differing),
        key=lambda one: order.index(one.id),
    )


def lacks(contract: Contract) -> ChallengeError | None:
    """What keeps the table from being compared with the reference, and filled; runs need less of it."""
    try:
        contract.require(CATALOG)
    except ChallengeError as error:
        return error
    columns = contract.columns["challenges"]
    missing = [name for name in _COLUMNS if name not in columns]
    wrong = [name for name in ("weekly_pool", "cooldown_days") if columns.get(name, "int4") != "int4"]
    if not missing and not wrong:
        return None
    what = f"has no column {', '.join(missing)}" if missing else f"has {', '.join(wrong)} of another type than integer"
    return ChallengeError(
        f'table "{contract.schema}.challenges" {what}',
        sqlstate=UNDEFINED_COLUMN if missing else DATATYPE_MISMATCH,
        detail="Runs do without. To compare the catalog with its reference, and to fill it, takes all of it.",
    )


def is_empty(db: Database) -> bool:
    """Whether the catalog has no row of anything: where it has one, a missing row may have been retired."""
    found: bool = db.value("SELECT NOT EXISTS (SELECT FROM discovery.challenges)")
    return found


def align_catalog(db: Database, environment: str, differences: list[Difference]) -> None:
    """Insert or update just the rows of these differences."""
    payload = json.dumps(reference_catalog(environment))
    db.rows(_ALIGN, payload=payload, challenge_ids=[one.id for one in differences])


def _difference(row: Row, environment: str, prefix: str) -> Difference:
    existing: Mapping[str, Any] | None = row["existing"]
    if existing is None:
        values = ", ".join(f"{name}: {_show(row[name])}" for name in _COLUMNS)
        insertion = f"SELECT * FROM {prefix}sync_challenge_catalog('{environment}', '{{{row['id']}}}');"
        return Difference(row["id"], True, values, insertion)
    differing = {name: (existing[name], row[name]) for name in _COLUMNS if existing[name] != row[name]}
    details = ", ".join(f"{name}: {_show(old)} -> {_show(new)}" for name, (old, new) in differing.items())
    difference = Difference(row["id"], False, details, "", differing, f"{prefix}challenges")
    return replace(difference, correction=difference.correction_of(list(differing)))


def _is_generous(name: str, existing: Any, wanted: Any) -> bool:
    """Whether a column would pay more, or sooner; an amount that is none pays nothing."""
    if name == "amount":
        return not (existing or "").strip().isdecimal() or int(wanted) > int(existing)
    if name == "active":
        return bool(wanted)
    return name in ("cooldown_days", "starting_block") and (wanted or 0) < (existing or 0)


def _show(value: Any) -> str:
    return "null" if value is None else json.dumps(value) if isinstance(value, bool) else str(value)


def _literal(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else _show(value)
