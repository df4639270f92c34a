"""How each challenge fares: the rows of the view `challenge_status`."""

from __future__ import annotations

from audius_challenges.annotations import Any
from audius_challenges.catalog import CATALOG, load_catalog
from audius_challenges.challenges import CHALLENGES
from audius_challenges.contract import read_contract
from audius_challenges.database import Database, Row
from audius_challenges.engine.open_slices import OPEN_KEYS
from audius_challenges.engine.shares import SHARED, Role
from audius_challenges.engine.users import USER_ID
from audius_challenges.errors import ChallengeError
from audius_challenges.operation.share_status import ShareStatus, seen_from_here, troubles
from audius_challenges.operation.stillness import Stillness, find_stillness

_STATES = f"""
    SELECT
        state.*,
        {OPEN_KEYS} AS open_keys
    FROM audius_challenges.processor_state AS state
"""

_COLUMNS = (
    "last_run",
    "last_success",
    "consecutive_failures",
    "last_error",
    "last_error_at",
    "sweep_progress",
    "sweep_position",
    "sweep_rounds",
    "sweep_finished_at",
)


def status(db: Database) -> list[tuple[Any, ...]]:
    """One row for each challenge, in run order."""
    contract = read_contract(db)
    try:
        contract.require(CATALOG)
        active = {challenge.id: challenge.active for challenge in load_catalog(db).values()}
    except ChallengeError:
        active = {}
    states = {row["challenge_id"]: row for row in db.rows(_STATES)}
    stillness = find_stillness(db)
    role, shares = seen_from_here(db)
    rows = []
    for processor in CHALLENGES:
        state = states.get(processor.id, {})
        key = getattr(processor, "key", USER_ID)
        if state.get("sweep_position") is not None and key.column in contract.columns.get(key.table, ()):
            keys = {"position": state["sweep_position"], "open_keys": state["open_keys"]}
            state["sweep_progress"] = db.value(key.progress, **keys)
        rows.append(
            (
                processor.id,
                processor.description,
                _status_by_shares(
                    processor.id, _status_of(active.get(processor.id), state, stillness), state, role, shares
                ),
                *(state.get(column, 0 if column == "consecutive_failures" else None) for column in _COLUMNS),
            )
        )
    return rows


def _status_of(active: bool | None, state: Row, stillness: Stillness | None) -> str:
    """The first that applies: what is wrong with the challenge, what the catalog says, what is wrong with all."""
    if state.get("consecutive_failures"):
        return "failing"
    if active is None:
        return "absent"
    if not active:
        return "inactive"
    if stillness:
        return stillness.status
    if state.get("last_run") is None:
        return "never run"
    return "ok" if state["phase"] == "watching" else str(state["phase"] or "never run")


def _status_by_shares(challenge_id: str, alone: str, state: Row, role: Role, shares: list[ShareStatus]) -> str:
    """What becomes of that where there are shares: a node leaves challenges to the primary, and that goes by what its
    nodes say of those that they derive.

    :param alone: the status on a server without shares
    """
    if role.is_node and challenge_id not in (role.plan.challenges if role.plan else SHARED):
        return "elsewhere"
    if not role.is_absorbed(challenge_id) or alone not in ("ok", "never run", "first build", "catching up"):
        return alone
    if state.get("last_run") is None:
        return "never run"
    if troubles(shares):
        return "late"
    if any(challenge_id in (share.behind or ()) for share in shares):
        return "first build" if state["is_exempt"] else "catching up"
    return "ok"
