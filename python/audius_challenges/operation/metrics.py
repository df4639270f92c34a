"""How challenges and ticks fare, in numbers for machines: samples as OpenMetrics knows them.

What `challenge_status` says is taken from there, so that both say the same. Only small tables are read, so that it can
be called every few seconds. A number that nobody knows yet is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from audius_challenges import __version__
from audius_challenges.challenges import CHALLENGES
from audius_challenges.contract import read_contract
from audius_challenges.database import Database, Row
from audius_challenges.engine.open_slices import OPEN_KEYS
from audius_challenges.engine.processor import Processor
from audius_challenges.engine.scores import VERSION
from audius_challenges.engine.state import Phase
from audius_challenges.operation.share_status import GAP, LOST, STOPPED, seen_from_here
from audius_challenges.operation.status import status
from audius_challenges.operation.stillness import find_stillness

PREFIX = "audius_challenges_"
SCHEDULE_STATES = ("ticking", "late", "stopped")

_OF_CHALLENGES = f"""
    SELECT
        known.challenge_id,
        (SELECT sum(day.completions) FROM audius_challenges.challenge_day AS day
         WHERE day.challenge_id = known.challenge_id)::float8 AS completions,
        (SELECT sum(day.amount) FROM audius_challenges.challenge_day AS day
         WHERE day.challenge_id = known.challenge_id)::float8 AS audio,
        coalesce((SELECT backfill.is_done FROM audius_challenges.day_backfill AS backfill
                  WHERE backfill.challenge_id = known.challenge_id), FALSE) AS is_backfilled,
        (SELECT count(DISTINCT aside.user_id) FROM audius_challenges.set_aside AS aside
         WHERE aside.challenge_id = known.challenge_id) AS users_set_aside,
        extract(epoch FROM clock_timestamp() - (
            SELECT min(history.started_at) FROM audius_challenges.history
            WHERE history.challenge_id = known.challenge_id
        ))::float8 AS oldest_history,
        state.phase,
        state.found_active,
        state.sweep_position,
        (SELECT count(*) FROM audius_challenges.slice WHERE slice.challenge_id = state.challenge_id) AS open_slices,
        {OPEN_KEYS} AS open_keys,
        state.sweep_rounds,
        extract(epoch FROM clock_timestamp() - state.last_success)::float8 AS last_success,
        extract(epoch FROM clock_timestamp() - state.sweep_finished_at)::float8 AS sweep_finished
    FROM unnest(:challenge_ids::text[]) AS known (challenge_id)
    LEFT JOIN audius_challenges.processor_state AS state
        ON state.challenge_id = known.challenge_id
"""

_OF_TICKS = """
    SELECT
        extract(epoch FROM CASE WHEN NOT tick.is_running THEN tick.ended_at - tick.began_at END)::float8 AS duration,
        extract(epoch FROM clock_timestamp() - tick.ended_at)::float8 AS age,
        (SELECT facts.period FROM audius_challenges.schedule_facts() AS facts) AS interval
    FROM (SELECT TRUE) AS always
    LEFT JOIN audius_challenges.last_tick AS tick
        ON TRUE
"""

_OF_TABLES = """
    SELECT
        relation.relname::text AS table_name,
        pg_total_relation_size(relation.oid) AS size
    FROM pg_class AS relation
    WHERE relation.relnamespace = to_regnamespace('audius_challenges')
        AND relation.relkind = 'r'
    ORDER BY relation.relname
"""


# Since the first one that was paid; a Friday has until six in the morning.
_UNPAID_FRIDAYS = f"""
    SELECT count(*)
    FROM (
        SELECT min(trending_results.week)::timestamp AS week
        FROM discovery.trending_results
        WHERE trending_results.type::text = :ranked_type::text
            AND trending_results.version::text = '{VERSION}'
            AND extract(ISODOW FROM trending_results.week) = 5
    ) AS first
    CROSS JOIN LATERAL generate_series(
        first.week,
        clock_timestamp() AT TIME ZONE 'UTC' - interval '6 hours',
        interval '7 days'
    ) AS friday (week)
    WHERE NOT EXISTS (
            SELECT FROM discovery.trending_results
            WHERE trending_results.type::text = :ranked_type::text
                AND trending_results.version::text = '{VERSION}'
                AND trending_results.week = friday.week::date
        )
        AND NOT EXISTS (
            SELECT FROM audius_challenges.unpaid_friday AS decided
            WHERE decided.challenge_id = :challenge_id::text
                AND decided.week = friday.week::date
        )
"""

_MAY_READ_RESULTS = """
    SELECT coalesce(bool_and(has_table_privilege(relation.oid, 'SELECT')), FALSE)
    FROM pg_class AS relation
    WHERE relation.relname = 'trending_results'
        AND relation.relnamespace = to_regnamespace(quote_ident(:schema::text))
"""


@dataclass(frozen=True)
class Sample:
    """A number, its name, and whose it is."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_row(self) -> tuple[str, str, float]:
        """The columns as SQL returns them."""
        return PREFIX + self.name, json.dumps(dict(self.labels)), float(self.value)


def metrics(db: Database) -> Iterator[Sample]:
    """All samples."""
    yield Sample("build_info", 1, {"version": __version__})
    yield from _of_ticks(db)
    yield from _of_challenges(db)
    yield from _of_shares(db)
    for table in db.rows(_OF_TABLES):
        yield Sample("table_size_bytes", table["size"], {"table": table["table_name"]})


def _of_ticks(db: Database) -> Iterator[Sample]:
    stillness = find_stillness(db)
    for state in SCHEDULE_STATES:
        is_it = state == (stillness.status if stillness else "ticking")
        yield Sample("schedule_state", is_it, {"state": state})
    tick = db.row(_OF_TICKS)
    yield from _known(
        {
            "tick_duration_seconds": tick["duration"],
            "tick_age_seconds": tick["age"],
            "tick_interval_seconds": tick["interval"],
        }
    )


def _of_challenges(db: Database) -> Iterator[Sample]:
    columns = read_contract(db).columns
    knows_fridays = db.value(_MAY_READ_RESULTS, schema=db.schema)
    failures = {row[0]: row[5] for row in status(db)}
    found = {row["challenge_id"]: row for row in db.rows(_OF_CHALLENGES, challenge_ids=list(failures))}
    for processor in CHALLENGES:
        state = found[processor.id]
        progress, backlog = _sweep(db, processor, state, columns) or (None, None)
        yield from _known(
            {
                # While the past is being counted they would be sums of a part of it, and what is old would look new.
                "completions_total": (state["completions"] or 0) if state["is_backfilled"] else None,
                "audio_total": (state["audio"] or 0) if state["is_backfilled"] else None,
                "past_counted": state["is_backfilled"],
                "users_set_aside": state["users_set_aside"],
                "active": bool(state["found_active"]),
                "failing": failures[processor.id] > 0,
                "consecutive_failures": failures[processor.id],
                "last_success_age_seconds": state["last_success"],
                "sweep_rounds_total": state["sweep_rounds"],
                "sweep_round_age_seconds": state["sweep_finished"],
                "sweep_progress_ratio": progress,
                "backlog_users": backlog,
                "open_slices": state["open_slices"],
                "history_age_seconds": state["oldest_history"],
                "unpaid_fridays": _unpaid_fridays(db, processor) if knows_fridays and state["found_active"] else None,
            },
            challenge=processor.id,
        )


def _of_shares(db: Database) -> Iterator[Sample]:
    """Of each share on the primary, of its own on a node; none elsewhere."""
    _, shares = seen_from_here(db)
    for share in shares:
        yield from _known(
            {
                "share_beat_age_seconds": share.beat_age,
                "share_stopped": share.status == STOPPED,
                "share_gap": share.status == GAP,
                "share_inbox_batches": share.waiting_batches,
                "share_inbox_rows": share.waiting_rows,
                "share_held_rows": share.held_rows,
                "share_slot_bytes": share.slot_bytes,
                "share_slot_lost": share.slot == LOST,
                "share_apply_errors_total": share.apply_errors,
            },
            share=share.share or "",
        )


def _unpaid_fridays(db: Database, processor: Processor) -> int | None:
    """Of a weekly ranking, how many Fridays have passed by, and nobody has decided that they shall."""
    if not (ranked_type := getattr(processor, "ranked_type", None)):
        return None
    unpaid: int = db.value(_UNPAID_FRIDAYS, ranked_type=ranked_type, challenge_id=processor.id)
    return unpaid


def _sweep(
    db: Database, processor: Processor, state: Row, columns: Mapping[str, Mapping[str, str]]
) -> tuple[float, int] | None:
    """How far the sweep is, from 0 to 1, and how many users a first build or a catch-up has yet to come to.

    Of a challenge that has a sweep, if there is the table that it goes through.
    """
    key = getattr(processor, "key", None)
    if key is None or key.column not in columns.get(key.table, ()):
        return None
    position = state["sweep_position"]
    keys = {"position": position, "open_keys": state["open_keys"]}
    progress = 0.0 if position is None else float(db.value(key.progress, **keys)) / 100
    is_behind = state["phase"] in (Phase.FIRST_BUILD.value, Phase.CATCHING_UP.value)
    return progress, (db.value(key.backlog, **keys) or 0) if is_behind else 0


def _known(values: Mapping[str, float | None], **labels: str) -> Iterator[Sample]:
    """Samples of what is known."""
    for name, value in values.items():
        if value is not None:
            yield Sample(name, value, labels)
