"""How each challenge fares: the rows of the view `challenge_status`."""

from __future__ import annotations

from audius_challenges.annotations import Any
from audius_challenges.catalog import CATALOG, load_catalog
from audius_challenges.challenges import CHALLENGES
from audius_challenges.contract import read_contract
from audius_challenges.database import Database, Row
from audius_challenges.engine.open_slices import OPEN_KEYS
from audius_challenges.engine.users import USER_ID
from audius_challenges.errors import ChallengeError
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
                _status_of(active.get(processor.id), state, stillness),
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
