"""How each challenge fares: the rows of the view `challenge_status`."""

from __future__ import annotations

from typing import Any

from audius_challenges.contract import CATALOG, read_contract
from audius_challenges.database import Database, Row
from audius_challenges.errors import ChallengeError
from audius_challenges.processors import PROCESSORS

_STATES = """
    SELECT
        state.*,
        checkpoint.progress -> 'backlog' ->> 'position' AS backlog_position
    FROM audius_challenges.processor_state AS state
    LEFT JOIN audius_challenges.checkpoint
        ON checkpoint.challenge_id = state.challenge_id
"""

_CATALOG = "SELECT id, coalesce(active, false) AS active FROM discovery.challenges"

_USERS_DONE = """
    SELECT round(100.0 * :position::numeric / greatest(max(users.user_id), :position, 1)::numeric, 1)
    FROM discovery.users
"""

_PLAYS_DONE = """
    SELECT round(100.0 * least(1, (history.position - history.began) / greatest(1, history.now - history.began)), 1)
    FROM (
        SELECT
            :position::numeric / 1e6 AS position,
            extract(epoch FROM min(created_at)) AS began,
            extract(epoch FROM now()) AS now
        FROM discovery.plays
    ) AS history
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
        active = {row["id"]: row["active"] for row in db.rows(_CATALOG)}
    except ChallengeError:
        active = {}
    states = {row["challenge_id"]: row for row in db.rows(_STATES)}
    rows = []
    for processor in PROCESSORS:
        state = states.get(processor.id, {})
        if state.get("sweep_position") is not None and "users" in contract.columns:
            state["sweep_progress"] = db.value(_USERS_DONE, position=state["sweep_position"])
        elif state.get("backlog_position") is not None and "plays" in contract.columns:
            state["sweep_progress"] = db.value(_PLAYS_DONE, position=int(state["backlog_position"]))
        rows.append(
            (
                processor.id,
                processor.description,
                _word(active.get(processor.id), state),
                *(state.get(column, 0 if column == "consecutive_failures" else None) for column in _COLUMNS),
            )
        )
    return rows


def _word(active: bool | None, state: Row) -> str:
    if active is None:
        return "absent"
    if state.get("consecutive_failures"):
        return "failing"
    if not active:
        return "inactive"
    if state.get("last_run") is None:
        return "never run"
    return "ok" if state["phase"] == "watching" else str(state["phase"] or "never run")
