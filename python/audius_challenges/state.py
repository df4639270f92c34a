"""What is remembered of each processor from run to run, and of the database that it was true of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from audius_challenges.database import Database


class Phase(Enum):
    """How far a processor has come with the users there are."""

    FIRST_BUILD = "first build"
    """Nobody was examined before, and the challenge had no user challenges: completions are not limited."""

    CATCHING_UP = "catching up"
    """Everybody is examined again, slice by slice."""

    WATCHING = "watching"
    """Everybody has been examined; changes are followed, with the sweep behind them."""


@dataclass
class State:
    """A row of `processor_state`, as a run reads and leaves it.

    :ivar phase: None until a run has succeeded
    :ivar catalog_seen: fingerprint of the catalog row that the last success went by
    :ivar sweep_position: the last user id examined in the current round of the sweep; None before the first
    :ivar sweep_rounds: rounds completed
    :ivar last_success: when a run last succeeded, microseconds since 1970; None before the first
    :ivar round_completed: whether this run has completed one
    """

    challenge_id: str
    phase: Phase | None = None
    catalog_seen: str | None = None
    sweep_position: int | None = None
    sweep_rounds: int = 0
    last_success: int | None = None
    round_completed: bool = field(default=False, compare=False)

    def complete_round(self) -> None:
        """The sweep has passed the last user."""
        self.phase = Phase.WATCHING
        self.sweep_position = None
        self.sweep_rounds += 1
        self.round_completed = True


_LOAD = """
    SELECT
        challenge_id,
        phase,
        catalog_seen,
        sweep_position,
        sweep_rounds,
        (extract(epoch FROM last_success) * 1000000.0)::bigint AS last_success
    FROM audius_challenges.processor_state
"""

_SAVE = """
    INSERT INTO audius_challenges.processor_state AS state
        (challenge_id, phase, catalog_seen, sweep_position, sweep_rounds, sweep_finished_at, last_run, last_success)
    SELECT
        :challenge_id,
        :phase::audius_challenges.phase,
        :catalog_seen,
        :position,
        :rounds,
        CASE WHEN :ran THEN now END,
        now,
        now
    FROM clock_timestamp() AS now
    ON CONFLICT (challenge_id) DO UPDATE SET
        phase = excluded.phase,
        catalog_seen = excluded.catalog_seen,
        sweep_position = excluded.sweep_position,
        sweep_rounds = excluded.sweep_rounds,
        sweep_finished_at = coalesce(excluded.sweep_finished_at, state.sweep_finished_at),
        last_run = excluded.last_run,
        last_success = excluded.last_success,
        consecutive_failures = 0
"""

_RECORD_FAILURE = """
    INSERT INTO audius_challenges.processor_state AS state
        (challenge_id, last_run, consecutive_failures, last_error, last_error_at)
    SELECT
        :challenge_id,
        now,
        1,
        :error,
        now
    FROM clock_timestamp() AS now
    ON CONFLICT (challenge_id) DO UPDATE SET
        last_run = excluded.last_run,
        consecutive_failures = state.consecutive_failures + 1,
        last_error = excluded.last_error,
        last_error_at = excluded.last_error_at
"""


def load_states(db: Database) -> dict[str, State]:
    """What is remembered of every processor, by challenge id."""
    return {
        row["challenge_id"]: State(
            row["challenge_id"],
            Phase(row["phase"]) if row["phase"] else None,
            row["catalog_seen"],
            row["sweep_position"],
            row["sweep_rounds"],
            row["last_success"],
        )
        for row in db.rows(_LOAD)
    }


def save_state(db: Database, state: State) -> None:
    """Remember a processor's success."""
    db.rows(
        _SAVE,
        challenge_id=state.challenge_id,
        phase=state.phase.value if state.phase else None,
        catalog_seen=state.catalog_seen,
        position=state.sweep_position,
        rounds=state.sweep_rounds,
        ran=state.round_completed,
    )
    state.round_completed = False


def record_failure(db: Database, challenge_id: str, error: str) -> None:
    """Remember a processor's failure, and nothing else of that run."""
    db.rows(_RECORD_FAILURE, challenge_id=challenge_id, error=error)


@dataclass(frozen=True)
class Installation:
    """The database that the remembered states are true of.

    A restored or copied database has another cluster or another `user_challenges`; its transaction ids are not
    those that the checkpoints speak of, and its triggers may not be there yet.

    :ivar cluster: the system identifier of the cluster
    :ivar relation: the object id of `user_challenges`
    :ivar guards: names of the triggers and foreign keys of `user_challenges`
    """

    cluster: int
    relation: int
    guards: frozenset[str]

    def is_here(self, present: Installation) -> bool:
        """Whether this is the present database, and not another that it was restored into."""
        return (self.cluster, self.relation) == (present.cluster, present.relation)


_REMEMBERED = """
    SELECT
        cluster,
        relation,
        to_jsonb(guards) AS guards
    FROM audius_challenges.installation
"""

_PRESENT = """
    SELECT
        system.system_identifier AS cluster,
        relation.oid::bigint AS relation,
        to_jsonb(ARRAY(
            SELECT tgname::text
            FROM pg_trigger
            WHERE tgrelid = relation.oid
                AND NOT tgisinternal
            UNION
            SELECT conname::text
            FROM pg_constraint
            WHERE conrelid = relation.oid
                AND contype = 'f'
            ORDER BY 1
        )) AS guards
    FROM pg_control_system() AS system
    INNER JOIN pg_class AS relation
        ON relation.relname = 'user_challenges'
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :name
"""

_REMEMBER = """
    INSERT INTO audius_challenges.installation (singleton, cluster, relation, guards)
    SELECT
        true,
        (:payload ->> 'cluster')::bigint,
        (:payload ->> 'relation')::bigint,
        ARRAY(SELECT jsonb_array_elements_text(:payload -> 'guards'))
    ON CONFLICT (singleton) DO UPDATE SET
        cluster = excluded.cluster,
        relation = excluded.relation,
        guards = excluded.guards
"""


def remembered_installation(db: Database) -> Installation | None:
    """The database that the states are from; None if nothing is remembered yet."""
    return next((_installation(row) for row in db.rows(_REMEMBERED)), None)


def present_installation(db: Database) -> Installation | None:
    """The database that this is; None where there is no `user_challenges`."""
    return next((_installation(row) for row in db.rows(_PRESENT, name=db.schema)), None)


def remember_installation(db: Database, present: Installation) -> None:
    """From now on the states are true of this database."""
    payload = {"cluster": present.cluster, "relation": present.relation, "guards": sorted(present.guards)}
    db.rows(_REMEMBER, payload=json.dumps(payload))


def _installation(row: dict[str, Any]) -> Installation:
    return Installation(row["cluster"], row["relation"], frozenset(json.loads(row["guards"])))
