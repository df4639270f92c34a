"""The primary takes in what nodes have sent: by another plan, nothing; with a gap in the numbers, nothing behind it.

What was taken in is marked so, and written by the challenges it is of (see `absorbing`), each in its turn.

A node goes on from rows that it has copied, table by table. They are of one state if nothing of the share was written
here meanwhile, as it is not from a plan on until its first node sends. So a second node in the same plan is refused: a
state of its streaks might be older than the rows. So is one that begins anew with its numbers.

A node whose slot was made anew by hand lacks the changes in between, and a gap shorter than a tick shows in no beat.
It shows here: a new slot has counted less than the former one had. Statistics are reset on purpose, too, and lost in a
crash; both leave a time behind, and say nothing about the slot then.

A table that leaves a publication is followed no more, without an error anywhere. So is one that comes back: what was
committed in between is missing. Each member of a publication has a number of its own, by which that shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from audius_challenges.annotations import Any
from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine.shares import REJOIN, REPLAN, RESEND, Plan, Problem, share_publication
from audius_challenges.settings import Share

# What a transaction of the caller's has read of statistics before may be older than what the last run has.
_HAS_COME = AnyPlan(f"""
    SELECT
        EXISTS (SELECT FROM audius_challenges.share_batch)
        OR EXISTS (
            SELECT FROM audius_challenges.share_node AS node
            WHERE node.mended_by IN ('{REPLAN}', '{REJOIN}')
                AND node.epoch = :epoch::bigint
        ) AS has_come,
        pg_stat_clear_snapshot()
""")

_FORGET = """
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.epoch <> :epoch::bigint
        OR share_batch.share <> ALL(:shares::text[])
"""

# From here on batches of another plan may come at any time. Slots are looked at when it is decided which batches there
# are: what these lack, shows.
_COME = AnyPlan(f"""
    SELECT
        known.share,
        node.epoch,
        coalesce(node.number, 0) AS number,
        node.node::text AS node,
        node.problem,
        node.mended_by,
        coalesce(come.batches, '{{}}') AS ids,
        coalesce(come.nodes, '{{}}') AS nodes,
        coalesce(come.numbers, '{{}}') AS numbers,
        coalesce(come.are_restarts, '{{}}') AS are_restarts,
        counted.total_txns AS slot_txns,
        counted.total_bytes AS slot_bytes,
        counted.stats_reset::text AS slot_reset,
        CASE WHEN slot.slot_name IS NOT NULL THEN server.stats_reset END::text AS stats_since,
        coalesce(
            node.stats_since = server.stats_reset
            AND CASE
                WHEN counted.stats_reset IS NOT DISTINCT FROM node.slot_reset
                    THEN counted.total_txns < node.slot_txns OR counted.total_bytes < node.slot_bytes
                ELSE counted.total_txns IS NOT NULL AND counted.stats_reset IS NULL
            END,
            FALSE
        ) AS is_slot_new,
        publication.members,
        coalesce(node.epoch = :epoch::bigint AND node.members <> publication.members, FALSE) AS are_members_new
    FROM unnest(:shares::text[], :slots::text[]) AS known (share, slot)
    LEFT JOIN (
        SELECT
            batch.share,
            array_agg(batch.id ORDER BY batch.id) AS batches,
            array_agg(batch.node::text ORDER BY batch.id) AS nodes,
            array_agg(batch.number ORDER BY batch.id) AS numbers,
            array_agg(batch.is_restart ORDER BY batch.id) AS are_restarts
        FROM audius_challenges.share_batch AS batch
        WHERE batch.epoch = :epoch::bigint
            AND NOT batch.is_taken_in
        GROUP BY batch.share
    ) AS come
        ON come.share = known.share
    LEFT JOIN audius_challenges.share_node AS node
        ON node.share = known.share
    LEFT JOIN pg_replication_slots AS slot
        ON slot.slot_name = known.slot
        AND slot.database = current_database()
    LEFT JOIN LATERAL pg_stat_get_replication_slot(slot.slot_name::text) AS counted
        ON slot.slot_name IS NOT NULL
    CROSS JOIN pg_stat_archiver AS server
    CROSS JOIN LATERAL (
        SELECT coalesce(md5(string_agg(
            concat_ws(' ', own.oid, own.pubinsert, own.pubupdate, own.pubdelete, own.pubtruncate, own.pubviaroot,
                member.oid),
            ', ' ORDER BY own.oid, member.oid
        )), '') AS members
        FROM pg_publication AS own
        LEFT JOIN pg_publication_rel AS member
            ON member.prpubid = own.oid
        WHERE own.pubname IN (known.slot, known.slot || '_plays')
    ) AS publication
    WHERE come.share IS NOT NULL
        OR (node.epoch = :epoch::bigint AND node.mended_by IN ('{REPLAN}', '{REJOIN}'))
    ORDER BY known.share
""")

_DROP = "DELETE FROM audius_challenges.share_batch WHERE share_batch.id = ANY(:ids::bigint[])"

_DROP_EARLIER = """
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.share = :share::text
        AND share_batch.id < :id::bigint
"""

# None but those that were looked at: what comes meanwhile has its turn in the next run.
_TAKE_IN = AnyPlan("""
    UPDATE audius_challenges.share_batch AS batch
    SET is_taken_in = TRUE
    WHERE batch.id = ANY(:ids::bigint[])
""")

# What was known stays, if nothing new is, by the same plan or of the same node.
_ELSE_AS_BEFORE = (
    "CASE WHEN excluded.{0} IS NULL AND node.{1} IS NOT DISTINCT FROM excluded.{1} THEN node.{2} ELSE excluded.{2} END"
)

_SAVE = AnyPlan(f"""
    INSERT INTO audius_challenges.share_node AS node
        (share, epoch, number, beat_at, says, behind, problem, mended_by, node, slot_txns, slot_bytes, slot_reset,
         stats_since, members)
    SELECT
        :share::text,
        :epoch::bigint,
        :number::bigint,
        beat.beat_at,
        beat.says,
        beat.behind,
        :problem::text,
        :mended_by::text,
        :node::uuid,
        :slot_txns::bigint,
        :slot_bytes::bigint,
        :slot_reset::timestamptz,
        :stats_since::timestamptz,
        :members::text
    FROM (SELECT true) AS always
    LEFT JOIN (
        SELECT
            batch.created_at[1] AS beat_at,
            batch.says,
            batch.behind
        FROM audius_challenges.share_batch AS batch
        WHERE batch.epoch = :epoch::bigint
            AND batch.share = :share::text
            AND batch.relation = 'beat'
            AND batch.is_taken_in
        ORDER BY batch.number DESC
        LIMIT 1
    ) AS beat
        ON true
    ON CONFLICT (share) DO UPDATE SET
        epoch = excluded.epoch,
        number = excluded.number,
        beat_at = {_ELSE_AS_BEFORE.format("beat_at", "epoch", "beat_at")},
        says = {_ELSE_AS_BEFORE.format("beat_at", "epoch", "says")},
        behind = {_ELSE_AS_BEFORE.format("beat_at", "epoch", "behind")},
        problem = excluded.problem,
        mended_by = excluded.mended_by,
        node = excluded.node,
        slot_txns = {_ELSE_AS_BEFORE.format("slot_txns", "node", "slot_txns")},
        slot_bytes = {_ELSE_AS_BEFORE.format("slot_txns", "node", "slot_bytes")},
        slot_reset = {_ELSE_AS_BEFORE.format("slot_txns", "node", "slot_reset")},
        stats_since = {_ELSE_AS_BEFORE.format("slot_txns", "node", "stats_since")},
        members = CASE
            WHEN node.epoch = excluded.epoch AND node.node IS NOT DISTINCT FROM excluded.node
                THEN coalesce(node.members, excluded.members)
            ELSE excluded.members
        END
""")

# A beat, and what says no more than that all is sent again, have no rows to write.
_EMPTY = AnyPlan("""
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.share = :share::text
        AND share_batch.challenge_id IS NULL
        AND share_batch.is_taken_in
""")


@dataclass(frozen=True)
class _Known:
    """What is known of the node of a share.

    :ivar epoch: the plan by which it is; None: nothing has come yet
    :ivar number: up to which all was taken in before
    :ivar is_slot_new: whether the slot by which it is fed is another one than when its batches came last
    :ivar are_members_new: whether the publications that feed it are others than when its batches came first
    :ivar slot: what that slot has counted, as it is remembered
    :ivar members: what the publications are, as it is remembered
    """

    share: str
    epoch: int | None
    number: int
    node: str | None
    problem: str | None
    mended_by: str | None
    is_slot_new: bool
    are_members_new: bool
    members: str
    slot: dict[str, Any]


@dataclass(frozen=True)
class _Batch:
    """One that has come, and was not taken in."""

    id: int
    node: str | None
    number: int
    is_restart: bool


def take_in(db: Database, plan: Plan) -> dict[str, Problem]:
    """Take in what has come, as far as nothing is wrong with it.

    :returns: what is, by share
    """
    if not db.row(_HAS_COME, epoch=plan.epoch)["has_come"]:
        return {}
    shares = plan.names
    slots = [share_publication(Share(number, plan.shares)) for number in range(plan.shares)]
    db.rows(_FORGET, epoch=plan.epoch, shares=shares)
    problems = {}
    for row in db.rows(_COME, epoch=plan.epoch, shares=shares, slots=slots):
        columns = (row.pop(name) for name in ("ids", "nodes", "numbers", "are_restarts"))
        batches = [_Batch(*each) for each in zip(*columns, strict=True)]
        slot = {name: row.pop(name) for name in ("slot_txns", "slot_bytes", "slot_reset", "stats_since")}
        known = _Known(**row, slot=slot)
        if problem := _Intake(db, plan, known, batches).run():
            problems[known.share] = problem
    return problems


@dataclass(frozen=True)
class _Intake:
    """What has come of one share, which is taken in or refused."""

    db: Database
    plan: Plan
    known: _Known
    batches: list[_Batch]

    def run(self) -> Problem | None:
        """Take in what may be written; what is wrong with the rest."""
        known, batches = self.known, self.batches
        is_of_plan = known.epoch == self.plan.epoch
        number = known.number if is_of_plan else 0
        node = known.node
        lasting = None
        if known.problem and (known.mended_by == REJOIN or (known.mended_by == REPLAN and is_of_plan)):
            lasting = Problem(known.problem, known.mended_by)
        if lasting and (known.mended_by == REPLAN or number):
            self._drop(batches)
            return lasting
        if lasting or not is_of_plan:
            # Nothing is written by this plan, so the first one that comes begins; not one that lacks changes.
            if lasting:
                self._drop([batch for batch in batches if batch.node == known.node])
                batches = [batch for batch in batches if batch.node != known.node]
            if not batches:
                if not is_of_plan:
                    self._save(known.node, 0, lasting)
                return lasting
            node = batches[0].node
        own = [batch for batch in batches if batch.node == node]
        if own and (problem := self._why_unfit(node, number, own)):
            self._save(node, number, problem)
            self._drop(batches)
            return problem
        problem = self._take(node, number, own, is_alone=len(own) == len(batches))
        if problem and problem.mended_by == REPLAN:
            self._drop([batch for batch in batches if batch.node != node])
        return problem

    def _why_unfit(self, node: str | None, number: int, own: list[_Batch]) -> Problem | None:
        """Why what a node sends does not go together with what it has sent before, whatever it sends again."""
        share = self.known.share
        if self.known.is_slot_new and node == self.known.node:
            return Problem(f"the slot of share {share} was made anew: changes are missing on its node", REJOIN)
        if self.known.are_members_new and node == self.known.node:
            changed = f"the publications of share {share} have changed: changes are missing on its node"
            return Problem(f"{changed}, unless its tables were locked meanwhile", REPLAN)
        first = min(batch.number for batch in own)
        if first <= number:
            text = f"the node of share {share} has gone back to batch {first}, after batch {number}"
            return Problem(text, REJOIN)
        return None

    def _take(self, node: str | None, number: int, own: list[_Batch], *, is_alone: bool) -> Problem | None:
        """Take in what is a node's, up to a gap.

        :param is_alone: whether nothing has come of another node
        """
        share = self.known.share
        if restart := max((batch.number for batch in own if batch.is_restart), default=0):
            # All is sent again: what came before it does not matter any more.
            first = min(batch.id for batch in own if batch.is_restart and batch.number == restart)
            self.db.rows(_DROP_EARLIER, share=share, id=first)
            number, own = restart - 1, [batch for batch in own if batch.id >= first]
        for each in sorted({batch.number for batch in own}):
            if each != number + 1:
                break
            number = each
        later = min((batch.number for batch in own if batch.number > number), default=None)
        problem = None
        if not is_alone:
            problem = Problem(f"another node of share {share} has adopted in epoch {self.plan.epoch}", REPLAN)
        elif later is not None:
            problem = Problem(_missing(share, number + 1, later - 1), RESEND)
        self.db.rows(_TAKE_IN, ids=[batch.id for batch in own if batch.number <= number])
        self._save(node, number, problem)
        self.db.rows(_EMPTY, share=share)
        return problem

    def _save(self, node: str | None, number: int, problem: Problem | None) -> None:
        self.db.rows(
            _SAVE,
            share=self.known.share,
            epoch=self.plan.epoch,
            number=number,
            problem=problem.text if problem else None,
            mended_by=problem.mended_by if problem else None,
            node=node,
            members=self.known.members,
            **self.known.slot,
        )

    def _drop(self, batches: list[_Batch]) -> None:
        if batches:
            self.db.rows(_DROP, ids=[batch.id for batch in batches])


def _missing(share: str, first: int, last: int) -> str:
    if first == last:
        return f"batch {first} of share {share} is missing"
    return f"batches {first} to {last} of share {share} are missing"
