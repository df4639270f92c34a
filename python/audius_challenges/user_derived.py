"""Processors whose user challenges follow from a user's own rows: two feeds of users, one way to reconcile them.

The feed of changed rows (`changes`) names the users affected since the last run. The sweep walks all user ids, a
bounded slice a run, round and round, and examines each slice as if it had changed: it is the first build, it catches
up after a change of the catalog, and it finds whatever leaves no trace in the columns that the first feed goes by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from audius_challenges.changes import (
    Source,
    changed_users,
    first_checkpoint,
    load_checkpoint,
    read_present,
    save_checkpoint,
)
from audius_challenges.contract import ELIGIBLE_USERS, USER_CHALLENGES
from audius_challenges.processor import Work
from audius_challenges.state import Phase

# Of two current rows of one user the one with the higher block number decides (rule 8).
_ELIGIBLE = """
    eligible AS (
        SELECT *
        FROM (
            SELECT DISTINCT ON (users.user_id)
                {columns}
            FROM discovery.users
            WHERE {among}
                AND users.is_current
            ORDER BY
                users.user_id,
                coalesce(users.blocknumber, 0) DESC,
                users.txhash DESC
        ) AS deciding
        WHERE NOT deciding.is_deactivated
    )
"""

_SLICE = """
    SELECT
        count(*) AS size,
        min(slice.user_id) AS least,
        max(slice.user_id) AS greatest
    FROM (
        SELECT DISTINCT users.user_id
        FROM discovery.users
        WHERE users.user_id > coalesce(:position, -9223372036854775808)
            AND users.user_id <= coalesce(:until, 9223372036854775807)
        ORDER BY users.user_id
        LIMIT :limit
    ) AS slice
"""


@dataclass(frozen=True)
class Users:
    """Some users: all those from one id to another, or among these just some.

    A slice of the sweep is named by its bounds, so that the planner reads a piece of an index, and not each id anew.

    :ivar size: how many they are
    :ivar ids: the ids, if not all between the bounds
    """

    size: int
    least: int
    greatest: int
    ids: list[int] | None = None

    @classmethod
    def listed(cls, ids: Collection[int]) -> Users:
        """Just these users."""
        return cls(len(ids), min(ids, default=0), max(ids, default=0), sorted(ids))

    @property
    def parameters(self) -> dict[str, Any]:
        """What `is_one_of_the_users` needs."""
        return {"least_user": self.least, "greatest_user": self.greatest, "users": self.ids}

    def __contains__(self, user_id: int) -> bool:
        return self.least <= user_id <= self.greatest and (self.ids is None or user_id in self.ids)


def is_one_of_the_users(column: str) -> str:
    """SQL of whether a user id is one of those that the parameters name (see `Users`)."""
    return f"({column} BETWEEN :least_user AND :greatest_user AND (:users IS NULL OR {column} = ANY(:users)))"


def eligible_users(columns: str = "", among: str = is_one_of_the_users("users.user_id")) -> str:
    """A common table expression `eligible`: those users who count (rule 8), with these columns of theirs.

    :param among: SQL of the condition that limits them
    """
    names = dict.fromkeys(f"{ELIGIBLE_USERS['users']} {columns}".split())
    return _ELIGIBLE.format(columns=",\n                ".join(f"users.{name}" for name in names), among=among)


@dataclass(frozen=True, kw_only=True)
class UserDerived:
    """A processor that is nothing but what its challenge counts.

    :ivar id: the challenge id
    :ivar description: what it rewards
    :ivar is_boolean: whether one step completes it; otherwise the catalog's step_count does
    :ivar sources: the tables whose changes affect users
    :ivar columns: table name → columns read
    :ivar user_columns: columns of `users` that `progress` wants in `eligible`
    :ivar suffix: what follows the hex user id in the specifier (rule 12)
    :ivar progress: SQL of a query over `eligible` returning user_id and progress (steps, from 0)
    :ivar aside: further common table expressions between `eligible` and `progress`
    :ivar waiting: SQL returning the user ids that must be examined at every run, or an empty text
    """

    id: str
    description: str
    sources: tuple[Source, ...]
    progress: str
    is_boolean: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    user_columns: str = ""
    suffix: str = ""
    aside: str = ""
    waiting: str = ""

    @property
    def reads(self) -> Mapping[str, str]:
        """Everything that reconciling needs."""
        users = f"{ELIGIBLE_USERS['users']} {self.user_columns}"
        return {**USER_CHALLENGES, "users": users, **self.columns}

    def run(self, work: Work) -> None:
        """Examine what changed and a slice of the sweep; with `full_scan`, everybody."""
        self._target(work)
        present = read_present(work.db, self.sources)
        checkpoint = load_checkpoint(work.db, self.id, self.sources)
        is_trusted = checkpoint is not None and checkpoint.is_trusted(present)
        if checkpoint is None or not is_trusted or work.state.catalog_seen != work.challenge.fingerprint:
            is_new = self._restart(work)
            # While it can be trusted, the history goes on: it knows of transactions that are still open.
            checkpoint = checkpoint.advanced(present) if checkpoint and is_trusted else first_checkpoint(present)
            # No row of anybody is there before their slice, unless a user who is waited for comes first.
            checkpoint.extra["is_from_nothing"] = is_new and not self.waiting
            save_checkpoint(work.db, self.id, self.sources, checkpoint)

        work.is_first_build = work.state.phase is Phase.FIRST_BUILD
        if work.full_scan:
            self._examine_everybody(work)
            return

        affected: set[int] = set()
        if not work.is_first_build:
            changed = changed_users(work.db, self.sources, checkpoint, present, work.settings.changed_users)
            advanced = checkpoint.advanced(present)
            is_overflow = len(changed) > work.settings.changed_users
            # Too many while the sweep is catching up: what it has passed already waits until it comes round again.
            if (changed or advanced.is_news(checkpoint)) and not (
                is_overflow and work.state.phase is Phase.CATCHING_UP
            ):
                save_checkpoint(work.db, self.id, self.sources, advanced)
            if not is_overflow:
                affected.update(changed)
            elif work.state.phase is Phase.WATCHING:
                self._restart(work)
        if self.waiting:
            affected.update(row["user_id"] for row in work.db.rows(self.waiting))
        if work.state.phase is Phase.WATCHING:
            slices = _next_slices_around(work, work.settings.sweep_users)
        else:
            slices = [next_slice(work, work.settings.slice_users)]
        unseen = work.is_first_build and checkpoint.extra.get("is_from_nothing", False)
        for users in slices:
            self.reconcile(work, users, unseen=unseen)
        self.reconcile(work, Users.listed([one for one in affected if not any(one in users for users in slices)]))

    def pause(self, work: Work) -> None:
        """Nothing moves; once active again, the catalog row differs from what was seen, and everybody is examined."""
        work.state.catalog_seen = None

    def start_from_now(self, work: Work) -> None:
        """Follow changes from here on; what was there before is left to the sweep."""
        present = read_present(work.db, self.sources)
        save_checkpoint(work.db, self.id, self.sources, first_checkpoint(present))
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint
        work.state.sweep_position = None

    def reconcile(self, work: Work, users: Users, *, unseen: bool = False) -> None:
        """Bring the user challenges of these users to what the source tables say.

        :param unseen: whether this is the first look at them, so that nothing of theirs was written yet
        """
        if not users.size:
            return
        work.users_examined += users.size
        work.write(
            f"""
            {eligible_users(self.user_columns)},
            {self.aside}
            progress AS MATERIALIZED ({self.progress}),
            wanted AS (
                SELECT
                    progress.user_id,
                    to_hex(progress.user_id) || :suffix AS specifier,
                    least(greatest(progress.progress, 0), :target)::integer AS current_step_count,
                    progress.progress >= :target AS is_complete,
                    :amount AS amount,
                    :as_of AS created_at,
                    :as_of AT TIME ZONE 'UTC' AS completed_at
                FROM progress
            )
            """,
            unseen=unseen,
            **users.parameters,
            suffix=self.suffix,
            target=self._target(work),
            amount=work.challenge.amount,
            as_of=work.as_of,
            starting_block=work.challenge.starting_block,
        )

    def _target(self, work: Work) -> int:
        """How many steps complete the challenge, an error if the catalog has none, whoever is examined."""
        return 1 if self.is_boolean else work.challenge.target

    def _restart(self, work: Work) -> bool:
        """Begin the sweep anew, and tell whether it is the first."""
        is_new = work.state.phase is None and not work.has_user_challenges()
        is_resumed = work.state.phase is Phase.FIRST_BUILD and work.state.catalog_seen == work.challenge.fingerprint
        work.state.phase = Phase.FIRST_BUILD if is_new or is_resumed else Phase.CATCHING_UP
        work.state.catalog_seen = work.challenge.fingerprint
        work.state.sweep_position = None
        return is_new

    def _examine_everybody(self, work: Work) -> None:
        position: int | None = None
        while (users := _users_between(work, position, None, work.settings.slice_users)).size:
            self.reconcile(work, users)
            position = users.greatest
        work.state.complete_round()


def next_slice(work: Work, size: int) -> Users:
    """The next users of the sweep's round, at most `size`; fewer, if they are the last."""
    users = _users_between(work, work.state.sweep_position, None, size)
    if users.size < size:
        work.state.complete_round()
    else:
        work.state.sweep_position = users.greatest
    return users


def _next_slices_around(work: Work, size: int) -> list[Users]:
    """The same, going on with the first users after the last: a small database fits in one slice."""
    if size == 0:
        return []
    began_at = work.state.sweep_position
    slices = [next_slice(work, size)]
    if slices[0].size < size and began_at is not None:
        slices.append(_users_between(work, None, began_at, size - slices[0].size))
        if slices[1].size:
            work.state.sweep_position = slices[1].greatest
    return slices


def _users_between(work: Work, after: int | None, until: int | None, limit: int) -> Users:
    found = work.db.row(_SLICE, position=after, until=until, limit=limit)
    return Users(**found) if found["size"] else Users.listed([])
