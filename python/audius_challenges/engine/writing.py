"""The one statement that writes user challenges."""

from __future__ import annotations

from dataclasses import dataclass, field

from audius_challenges.annotations import Any
from audius_challenges.contract import Contract
from audius_challenges.database import Database
from audius_challenges.engine.totals import Backfill, Totals, day_of, is_counted
from audius_challenges.errors import NUMERIC_VALUE_OUT_OF_RANGE, ChallengeError
from audius_challenges.settings import MAX_INTEGER
from audius_challenges.sources import columns_read

# LIMIT 1, here and elsewhere: one look into an index for each row, where the planner, misled by an estimate, would read
# and hash all rows of a challenge; the cost must follow what is examined, not what there is. And a sub-select around
# the id: to the planner a challenge that statistics have not seen yet has one row, as good as the key.
_WANTED_AND_EXISTING = """
    FROM wanted
    LEFT JOIN LATERAL (
        SELECT
            user_challenges.specifier,
            user_challenges.user_id,
            user_challenges.is_complete,
            user_challenges.current_step_count,
            user_challenges.amount
        FROM discovery.user_challenges
        WHERE NOT :nothing_written::boolean
            AND user_challenges.challenge_id::text = (SELECT :challenge_id::text)
            AND user_challenges.specifier::text = wanted.specifier
        LIMIT 1
    ) AS existing ON TRUE"""


_DIFFERS = """existing.is_complete IS NOT TRUE
            AND (existing.user_id, existing.current_step_count, existing.is_complete, existing.amount)
            IS DISTINCT FROM (wanted.user_id, wanted.current_step_count, wanted.is_complete, wanted.amount)"""


def _is_to_be_written(unless: str, *, at_once: bool) -> str:
    return f"""CASE
        WHEN existing.specifier IS NULL
            THEN wanted.current_step_count >= 1 AND NOT ({unless})
        ELSE
            {"FALSE" if at_once else _DIFFERS}
    END"""


def _differing(unless: str, *, at_once: bool) -> str:
    return f"""
    SELECT
        wanted.*,
        existing.specifier IS NULL AS is_new{_WANTED_AND_EXISTING}
    WHERE {_is_to_be_written(unless, at_once=at_once)}
"""


def prospects(wanted: str, *, unless: str = "FALSE", at_once: bool = False, earlier: str = "'{}'::text[]") -> str:
    """SQL of what a write would find (see `write_user_challenges`), without writing: each wanted row, and its fate."""
    return f"""
    WITH {wanted}
    SELECT
        wanted.user_id,
        wanted.specifier,
        {earlier} AS earlier,
        wanted.current_step_count AS steps,
        wanted.is_complete,
        wanted.amount,
        existing.specifier IS NOT NULL AS is_there,
        {_is_to_be_written(unless, at_once=at_once)} AS is_to_be_written{_WANTED_AND_EXISTING}
    ORDER BY wanted.specifier COLLATE "C"
"""


_LEAVE_ALONE = "ON CONFLICT (challenge_id, specifier) DO NOTHING"
_UPDATE_INCOMPLETE = """
    ON CONFLICT (challenge_id, specifier) DO UPDATE SET
        user_id = excluded.user_id,
        is_complete = excluded.is_complete,
        current_step_count = excluded.current_step_count,
        completed_blocknumber = excluded.completed_blocknumber,
        amount = excluded.amount,
        completed_at = excluded.completed_at
    WHERE existing.is_complete IS NOT TRUE
"""


# The latest blocks may be absurd ones (rule 7): one number carried away would hide all that a disburser pages by.
_LATE_BLOCKS = 20
PLAUSIBLE = 100_000

_COMPLETED_BLOCKNUMBER = f"""(
                    SELECT coalesce(max(blocks.number), 0)
                    FROM discovery.blocks
                    WHERE blocks.number <= coalesce((
                        SELECT late.number::bigint
                        FROM discovery.blocks AS late
                        WHERE late.number IS NOT NULL
                        ORDER BY late.number DESC
                        LIMIT 1
                        OFFSET {_LATE_BLOCKS}
                    ) + {PLAUSIBLE}, 9223372036854775807)
                )"""


NEXT_COMPLETED_BLOCKNUMBER = f"SELECT {_COMPLETED_BLOCKNUMBER} AS number"


def require_room_for_block_numbers(db: Database, contract: Contract) -> None:
    """Demand that the number that completions get fits where they keep it.

    :raises ChallengeError: naming the column that is too narrow; otherwise each user would fail alone, and all would
    """
    if contract.is_bigint("blocks", "number") and not contract.is_bigint("user_challenges", "completed_blocknumber"):
        number = db.value(NEXT_COMPLETED_BLOCKNUMBER)
        if number > MAX_INTEGER:
            table = f"{db.plpy.quote_ident(db.schema)}.user_challenges"
            raise ChallengeError(
                f'block number {number} does not fit column "completed_blocknumber" of table "{contract.schema}.'
                'user_challenges"',
                sqlstate=NUMERIC_VALUE_OUT_OF_RANGE,
                hint=f"ALTER TABLE {table} ALTER COLUMN completed_blocknumber TYPE bigint; rewrites the table.",
            )


@dataclass
class Written:
    """How many user challenges were inserted, updated, and among both completed.

    :ivar totals: the completed ones by day, but for those that the counting of the past will come to
    """

    inserted: int = 0
    updated: int = 0
    completed: int = 0
    totals: Totals = field(default_factory=Totals)

    @property
    def rows(self) -> int:
        """All of them."""
        return self.inserted + self.updated

    def add(self, other: Written) -> None:
        """Add another statement's counts."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.completed += other.completed
        self.totals.add(other.totals)


def writing(wanted: str, *, only_new: bool = False, unless: str = "FALSE", at_once: bool = False) -> str:
    """SQL of the one write; see `write_user_challenges`."""
    on_conflict = "" if only_new else _LEAVE_ALONE if at_once else _UPDATE_INCOMPLETE
    return f"""
        WITH {wanted},
        differing AS ({"SELECT *, TRUE AS is_new FROM wanted" if only_new else _differing(unless, at_once=at_once)}),
        written AS (
            INSERT INTO discovery.user_challenges AS existing
                (challenge_id, user_id, specifier, is_complete, current_step_count,
                 completed_blocknumber, amount, created_at, completed_at)
            SELECT
                :challenge_id::text,
                differing.user_id,
                differing.specifier,
                differing.is_complete,
                differing.current_step_count,
                CASE WHEN differing.is_complete THEN {_COMPLETED_BLOCKNUMBER} END,
                differing.amount,
                differing.created_at,
                CASE WHEN differing.is_complete THEN differing.completed_at END
            FROM differing
            ORDER BY differing.specifier COLLATE "C"
            {on_conflict}
            RETURNING
                existing.specifier::text AS specifier,
                existing.is_complete,
                existing.amount,
                {day_of("existing")} AS day
        )
        SELECT
            count(*) FILTER (WHERE written.specifier IN ({_those("differing.is_new")})) AS inserted,
            count(*) FILTER (WHERE written.specifier IN ({_those("NOT differing.is_new")})) AS updated,
            count(*) FILTER (WHERE written.is_complete) AS completed,
            ARRAY(
                SELECT ARRAY[done.day::text, count(*)::text, sum(done.amount)::text]
                FROM written AS done
                WHERE done.is_complete
                    AND {is_counted("done.specifier")}
                GROUP BY done.day
            ) AS totals
        FROM written
    """


def _those(which: str) -> str:
    """A sub-select inside an aggregate is hashed; a join of rows that the planner thinks few would be nested loops."""
    return f"""
                SELECT differing.specifier
                FROM differing
                WHERE {which}
            """


WRITES = columns_read(writing("wanted AS (SELECT)"))
"""What every challenge needs to write its user challenges."""


def write_user_challenges(
    db: Database,
    wanted: str,
    *,
    only_new: bool = False,
    unless: str = "FALSE",
    at_once: bool = False,
    nothing_written: bool = False,
    backfill: Backfill,
    **values: Any,
) -> Written:
    """Insert what is missing, update what is incomplete and differs; leave every other row unlocked and unwritten.

    :param wanted: SQL of common table expressions, the last named `wanted`, of the columns user_id, specifier,
        current_step_count, is_complete, amount, created_at (timestamptz), completed_at (timestamp, UTC)
    :param only_new: every wanted row must be new: one that is there already is an error
    :param unless: SQL over `wanted` of whether a row that is not there must not be written
    :param at_once: a row that is there is left alone, complete or not: what is wanted comes complete or not at all
    :param nothing_written: nothing is looked up, since no row of these users was ever written; one that somebody else
        has written meanwhile is updated if it is incomplete, whether it differs or not
    :param backfill: how far the past of the challenge is counted
    :param values: what `wanted` needs, and challenge_id
    :raises plpy.SPIError: with only_new, if one of the rows exists (unique_violation)
    """
    written = db.row(
        writing(wanted, only_new=only_new, unless=unless, at_once=at_once),
        nothing_written=nothing_written,
        **backfill.parameters,
        **values,
    )
    return Written(**{**written, "totals": Totals.of(written["totals"])})
