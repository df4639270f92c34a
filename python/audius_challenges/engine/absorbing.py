"""A challenge that nodes derive, on the primary: what they have sent is written there, by the one write.

A node has derived the rows from its copy of the sources; here nothing is derived again. They are written as if it had
been: complete rows are final, the trigger fires, completions are limited and counted, one bad row sets one user aside.
Of several versions of a row the last one counts. What is written is deleted in the same transaction; so it is written
once, whatever fails.

The sources are not followed meanwhile. When the primary takes over again, it examines everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audius_challenges.annotations import Any
from audius_challenges.database import AnyPlan
from audius_challenges.engine.explanation import Answer, Asked
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Processor, Work
from audius_challenges.engine.set_aside import SetAside, may_be_one_users
from audius_challenges.engine.shares import COMPLETIONS, STREAKS, USER_CHALLENGES, Plan
from audius_challenges.engine.state import Phase, State
from audius_challenges.engine.turns import TURN_SECONDS
from audius_challenges.engine.users import USER_ID, Users, is_one_of_the_users
from audius_challenges.engine.writing import writing
from audius_challenges.sources import Reads

ROWS = 50_000
"""Rows that one turn takes, or as many as one batch has."""

# In the order of their numbers, so that of a share nothing is left behind what is taken. An array of ids tells its
# length by its size: none is read for that. A node saves states of streaks before their rows; both are taken, or none,
# and so is all of `e` that is sent again. Else what is left waiting may be dropped, by another plan: whoever goes on
# from a state without its rows, or from rows without their state, loses rewards or pays them twice.
_TAKE = AnyPlan(f"""
    SELECT
        coalesce(array_agg(piece.id) FILTER (WHERE piece.before < {ROWS * 8}), '{{}}') AS ids,
        coalesce(bool_or(piece.before >= {ROWS * 8}), FALSE) AS goes_on,
        ARRAY(
            SELECT DISTINCT held.users[1]
            FROM audius_challenges.share_batch AS held
            WHERE held.challenge_id = :challenge_id::text
                AND held.is_held
                AND NOT EXISTS (
                    SELECT FROM audius_challenges.set_aside AS aside
                    WHERE aside.challenge_id = held.challenge_id
                        AND aside.examined_id = held.users[1]
                )
        ) AS let_go
    FROM (
        SELECT
            waiting.id,
            min(waiting.before) OVER (PARTITION BY waiting.share, waiting.piece) AS before
        FROM (
            SELECT
                batch.id,
                batch.share,
                sum(batch.size) OVER (ORDER BY batch.number, batch.share, batch.id) - batch.size AS before,
                count(*) FILTER (WHERE batch.is_first) OVER (
                    PARTITION BY batch.share ORDER BY batch.number, batch.id
                ) AS piece
            FROM (
                SELECT
                    share_batch.id,
                    share_batch.share,
                    share_batch.number,
                    pg_column_size(share_batch.users) AS size,
                    share_batch.challenge_id <> 'e'
                    OR share_batch.is_restart IS DISTINCT FROM lag(share_batch.is_restart) OVER own
                    OR (
                        share_batch.relation = '{STREAKS}'
                        AND NOT share_batch.is_restart
                        AND lag(share_batch.relation) OVER own <> '{STREAKS}'
                    ) AS is_first
                FROM audius_challenges.share_batch
                WHERE share_batch.challenge_id = :challenge_id::text
                    AND share_batch.is_taken_in
                    AND NOT share_batch.is_held
                WINDOW own AS (PARTITION BY share_batch.share ORDER BY share_batch.number, share_batch.id)
            ) AS batch
        ) AS waiting
    ) AS piece
""")

_COUNT = """
    SELECT coalesce(sum(cardinality(batch.users)), 0)::bigint
    FROM audius_challenges.share_batch AS batch
    WHERE batch.id = ANY(:batches::bigint[])
        AND batch.relation = 'user_challenges'
"""

# Those who are tried again by the clock, whether anything of theirs waits or not; with a full scan all of them.
_DUE = f"""
    SELECT DISTINCT aside.examined_id AS user_id
    FROM audius_challenges.set_aside AS aside
    WHERE aside.challenge_id = :challenge_id::text
        AND (
            :full_scan::boolean
            OR aside.tried_at <= clock_timestamp() - {TURN_SECONDS} * interval '1 second'
        )
"""

_HELD = """
    SELECT batch.id
    FROM audius_challenges.share_batch AS batch
    WHERE batch.challenge_id = :challenge_id::text
        AND batch.is_held
        AND batch.users[1] = ANY(:users::bigint[])
"""

_USERS = """
    SELECT ARRAY(
        SELECT DISTINCT own.user_id
        FROM audius_challenges.share_batch AS batch
        CROSS JOIN LATERAL unnest(batch.users) AS own (user_id)
        WHERE batch.id = ANY(:batches::bigint[])
    ) AS users
"""

_DELETE = "DELETE FROM audius_challenges.share_batch WHERE id = ANY(:batches::bigint[])"

_ROWS = f"""
            FROM audius_challenges.share_batch AS batch
            CROSS JOIN LATERAL unnest(
                batch.users, batch.specifiers, batch.steps, batch.amounts, batch.is_complete, batch.created_at,
                batch.completed_at
            ) AS sent (user_id, specifier, steps, amount, is_complete, created_at, completed_at)
            WHERE batch.id = ANY(:batches::bigint[])
                AND {is_one_of_the_users("sent.user_id")}"""

# Their rows stay, a batch for each of them; of each row the last version.
_HOLD = f"""
    INSERT INTO audius_challenges.share_batch
        (epoch, share, number, relation, challenge_id, users, specifiers, steps, amounts, is_complete, created_at,
         completed_at, is_taken_in, is_held)
    SELECT
        latest.epoch,
        latest.share,
        max(latest.number),
        latest.relation,
        latest.challenge_id,
        array_agg(latest.user_id),
        array_agg(latest.specifier),
        array_agg(latest.steps),
        array_agg(latest.amount),
        array_agg(latest.is_complete),
        array_agg(latest.created_at),
        array_agg(latest.completed_at),
        TRUE,
        TRUE
    FROM (
        SELECT DISTINCT ON (batch.relation, sent.user_id, sent.specifier)
            batch.epoch,
            batch.share,
            batch.number,
            batch.relation,
            batch.challenge_id,
            sent.*{_ROWS}
        ORDER BY
            batch.relation,
            sent.user_id,
            sent.specifier,
            sent.is_complete DESC,
            batch.number DESC
    ) AS latest
    GROUP BY
        latest.epoch,
        latest.share,
        latest.relation,
        latest.challenge_id,
        latest.user_id
"""

_ARE_ALL_DONE = """
    SELECT count(*) FILTER (WHERE :challenge_id::text <> ALL(node.behind)) = :shares::bigint
    FROM audius_challenges.share_node AS node
    WHERE node.epoch = :epoch::bigint
"""

_WANTED = f"""
    wanted AS (
        SELECT DISTINCT ON (sent.specifier COLLATE "C")
            sent.user_id,
            sent.specifier,
            sent.steps AS current_step_count,
            sent.is_complete,
            sent.amount,
            sent.created_at,
            sent.completed_at{_ROWS}
            AND batch.relation = '{USER_CHALLENGES}'
        ORDER BY
            sent.specifier COLLATE "C",
            sent.is_complete DESC,
            batch.number DESC
    )
"""

_STEPS = (
    "profile_description",
    "profile_name",
    "profile_picture",
    "profile_cover_photo",
    "follows",
    "favorites",
    "reposts",
)
_BITS = ", ".join(f"sent.steps & {1 << bit} <> 0" for bit, _ in enumerate(_STEPS))
_NEW_STEPS = ", ".join(f"{step} = excluded.{step}" for step in _STEPS)
_DIFFERING = ", ".join(f"known.{step}" for step in _STEPS), ", ".join(f"excluded.{step}" for step in _STEPS)


def _side(columns: str, newest: str) -> str:
    """SQL of the last version of each user's row in a table beside `user_challenges`."""
    return f"""
    SELECT DISTINCT ON (sent.user_id)
        sent.user_id,
        {columns}{_ROWS}
                AND batch.relation = :relation::text
    ORDER BY
        sent.user_id,
        {newest}"""


_SAVE_COMPLETIONS = f"""
    INSERT INTO discovery.challenge_profile_completion AS known (user_id, {", ".join(_STEPS)})
    {_side(_BITS, "batch.number DESC")}
    ON CONFLICT (user_id) DO UPDATE SET
        {_NEW_STEPS}
    WHERE ({_DIFFERING[0]}) IS DISTINCT FROM ({_DIFFERING[1]})
"""

# A state only ever goes on: its listens are counted.
_SAVE_STREAKS = f"""
    INSERT INTO discovery.challenge_listen_streak AS known (user_id, last_listen_date, listen_streak)
    {_side("sent.completed_at, sent.steps", "sent.completed_at DESC NULLS LAST, batch.number DESC")}
    ON CONFLICT (user_id) DO UPDATE SET
        last_listen_date = excluded.last_listen_date,
        listen_streak = excluded.listen_streak
    WHERE known.last_listen_date IS NULL
        OR known.last_listen_date < excluded.last_listen_date
"""

_BESIDE = {"p": (COMPLETIONS, _SAVE_COMPLETIONS), "e": (STREAKS, _SAVE_STREAKS)}
"""The table beside `user_challenges` that a challenge writes, too."""


@dataclass
class _Taken:
    """What a turn writes.

    :ivar ids: numbers of batches
    :ivar goes_on: whether more are there
    :ivar let_go: users whose rows are held, though somebody has deleted that they are set aside
    """

    ids: list[int]
    goes_on: bool
    let_go: list[int]


class Absorbing(PerUser):
    """A challenge that nodes derive.

    :param processor: what derives it where there are no shares
    """

    def __init__(self, processor: Processor, plan: Plan) -> None:
        self.id = processor.id
        self.description = processor.description
        self._processor = processor
        self._plan = plan
        self._batches: list[int] = []

    @property
    def without_past(self) -> str | None:
        """As where there are no shares."""
        return self._processor.without_past

    @property
    def reads(self) -> Reads:
        """All that deriving takes: the primary can take over at any time."""
        return self._processor.reads

    @property
    def statements(self) -> Mapping[str, str]:
        """The SQL that writes what nodes have sent."""
        beside = {"states": _BESIDE[self.id][1]} if self.id in _BESIDE else {}
        return {**beside, "write": writing(_WANTED)}

    def run(self, work: Work) -> None:
        """Write what has come, about as many rows as a slice has users; with `full_scan`, all of it."""
        state = work.state
        self._close_slices(work)
        _let_go(state)
        work.is_first_round = work.is_behind = not state.sweep_rounds
        while True:
            taken = _Taken(**work.db.row(_TAKE, challenge_id=self.id))
            self._absorb(work, taken)
            work.goes_on = taken.goes_on
            if not (work.full_scan and taken.goes_on):
                break
        if work.is_first_round:
            # What was asked for as a whole is approved; from there on it is counted anew.
            state.completed = 0 if work.full_scan else work.swept
        if (work.is_first_round or state.is_exempt) and not work.goes_on and self._are_all_done(work):
            self._end_first_round(state)

    def explain(self, asked: Asked) -> Answer:
        """As where there are no shares: the primary has the same sources."""
        return self._processor.explain(asked)

    def resume(self, work: Work) -> None:
        """As where there are no shares: pauses are the primary's."""
        self._processor.resume(work)

    def pause(self, work: Work) -> None:
        """As where there are no shares; what has come waits."""
        self._processor.pause(work)
        _let_go(work.state)

    def reconcile(self, work: Work, users: Users, *, nothing_written: bool) -> None:
        """Write the rows of these users in the batches of the turn; states first, as the trigger reads them."""
        rows: dict[str, Any] = {"batches": self._batches, **users.parameters}
        with work.db.plpy.subtransaction():
            if self.id in _BESIDE:
                table, statement = _BESIDE[self.id]
                work.db.rows(statement, relation=table, **rows)
            work.write(_WANTED, nothing_written=nothing_written, **rows)

    def _absorb(self, work: Work, taken: _Taken) -> None:
        db, ids = work.db, taken.ids
        known = work.state.set_aside = sorted({*work.state.set_aside, *taken.let_go})
        due = self._due(work).union(taken.let_go) if known else set()
        if not ids and not due:
            return
        set_aside = SetAside(db, work.state, USER_ID)
        set_aside.begin(work.written)
        work.users_examined += db.value(_COUNT, batches=ids)
        self._batches = ids
        if known or not self._is_written_at_once(work):
            self._write_apart(work, set_aside, due)
        work.users_set_aside += set_aside.save()
        db.rows(_DELETE, batches=self._batches)

    def _due(self, work: Work) -> set[int]:
        """Who of those who are set aside is tried again, though nothing of his has come."""
        return {row["user_id"] for row in work.db.rows(_DUE, challenge_id=self.id, full_scan=work.full_scan)}

    def _is_written_at_once(self, work: Work) -> bool:
        """Write all of it; whether that went well, or failed for what may be a single user's."""
        try:
            self.reconcile(work, _EVERYBODY, nothing_written=False)
        except Exception as error:
            if not may_be_one_users(work.db, error):
                raise
            return False
        return True

    def _write_apart(self, work: Work, set_aside: SetAside, due: set[int]) -> None:
        """Write it user by user where need be, with what was held back of those who are tried again."""
        db = work.db
        users = due.union(db.value(_USERS, batches=self._batches))
        again = sorted(users.intersection(work.state.set_aside))
        held = db.rows(_HELD, challenge_id=self.id, users=again) if again else []
        self._batches = [*self._batches, *(row["id"] for row in held)]
        for part in set_aside.apart(Users.listed(users), work.slices):
            self._examine(work, set_aside, part, nothing_written=False)
        if failed := set_aside.failing:
            db.rows(_HOLD, batches=self._batches, **Users.listed(failed).parameters)

    def _are_all_done(self, work: Work) -> bool:
        """Whether every node has examined all users once, by its last tick, and something has come of that.

        The last tick of a node may have been before the challenge was active: then it says nothing yet.
        """
        whom = {"challenge_id": self.id, "epoch": self._plan.epoch, "shares": self._plan.shares}
        return work.has_user_challenges() and bool(work.db.value(_ARE_ALL_DONE, **whom))

    def _end_first_round(self, state: State) -> None:
        state.sweep_rounds = max(state.sweep_rounds, 1)
        state.is_exempt = False
        state.completed = 0


_EVERYBODY = Users(0, -(1 << 63), (1 << 63) - 1)


def _let_go(state: State) -> None:
    """Follow nothing: when the primary takes over, everybody is examined again."""
    state.look, state.catalog_seen, state.nothing_written = None, None, False
    if state.phase is not None:
        state.phase, state.sweep_position = Phase.CATCHING_UP, None
