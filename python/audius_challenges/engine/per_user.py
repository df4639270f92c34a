"""Processors that take users: those whose rows have changed, and the sweep's slice, whatever they then do with them.

Where the sources have no way from a user to his rows, rows take the place of users (see `Key`): those that have
changed, and a slice of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from audius_challenges.engine import sweep
from audius_challenges.engine.explanation import Answer, Asked
from audius_challenges.engine.processor import Work
from audius_challenges.engine.set_aside import SetAside, may_be_one_users
from audius_challenges.engine.state import Phase
from audius_challenges.engine.users import USER_ID, Key, Users
from audius_challenges.sources import USERS, Reads, Source


class PerUser(ABC):
    """A processor of this kind."""

    id: str
    description: str
    key: Key = USER_ID

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """The tables and columns of the discovery schema that the processor needs."""

    @property
    @abstractmethod
    def statements(self) -> Mapping[str, str]:
        """The SQL that is the challenge's own, by what it does, as runs execute it."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Whose changed rows affect which users; the user's own row always does."""
        return (USERS,)

    @property
    def due(self) -> str | None:
        """SQL of the ids of the users to examine at every run, for what leaves no trace in a source.

        What is set aside is not due: it is tried again when it changes, and once a round.
        """
        return None

    def due_of(self, work: Work) -> str | None:  # noqa: ARG002 - as a rule it is the same in every database
        """The same, by the indexes that there are."""
        return self.due

    @property
    def without_past(self) -> str | None:
        """Nothing, as a rule: what users have is counted, whenever they got it."""
        return None

    @property
    def is_split(self) -> bool:
        """Whether several sessions may examine users at once: nothing of a user's depends on what others are given."""
        return False

    @property
    def after(self) -> str | None:
        """The id of the challenge that a user must have completed before."""
        return None

    @property
    def round_users(self) -> str | None:
        """SQL of the ids of the users to examine whenever the sweep has come round, in place of its slices.

        For what no index leads to from a user: one pass over a table a round. It may use :starting_block::bigint.
        """
        return None

    @abstractmethod
    def reconcile(self, work: Work, users: Users, *, nothing_written: bool) -> None:
        """Bring the user challenges of these users to what the source tables say: all of them, or, if it fails, none.

        :param nothing_written: whether no row of theirs was ever written, so that none need be looked up
        """

    def deeds(self, work: Work, users: Users) -> dict[str, int]:  # noqa: ARG002 - as a rule a user's rows go together
        """The specifiers of what is rewarded singly, so that one can be set aside and the others written; who earns."""
        return {}

    def run(self, work: Work) -> None:
        """Examine what changed and a slice of the sweep; with `full_scan`, everybody."""
        state, sources = work.state, self._followed(work)
        work.slices = work.slices.of(self.key)
        is_followed = work.feed.is_followed(state, sources)
        is_anew = not is_followed or state.catalog_seen != work.challenge.fingerprint
        work.is_waiting = self._must_wait(work, is_anew=is_anew)
        work.is_by_slices = False
        if work.is_waiting:
            return
        if is_anew or work.full_scan:
            self._close_slices(work)
        if is_anew:
            is_new = sweep.restart(work)
            # Users who are due come out of turn, so that their rows may be there before their slice.
            state.nothing_written = is_new and not self.due
        if not is_followed:
            work.feed.follow(state, sources)
        self._begin(work)
        before = work.written.completed
        self._take_turns(work, self._turn(work))
        if work.is_by_slices:
            # Whoever waits has neither completed nor mended anything.
            if not work.is_waiting:
                self._count(work, before)
        elif work.is_first_round and not state.sweep_rounds:
            state.completed = work.swept

    def take_slice(self, work: Work, users: Users) -> None:
        """Examine an open slice that a helper has taken, beside the run of the leader.

        :raises ChallengeError: as `run` does
        """
        work.slices = work.slices.of(self.key)
        work.is_by_slices = True
        self._begin(work)
        before = work.written.completed
        nothing_written = work.is_first_build and work.state.nothing_written
        self._take_turns(work, [(users, True, nothing_written)])
        self._count(work, before)

    def _begin(self, work: Work) -> None:
        work.is_first_build = work.state.phase is Phase.FIRST_BUILD
        work.is_first_round = not work.state.sweep_rounds
        work.is_behind = work.state.phase is not Phase.WATCHING

    def _take_turns(self, work: Work, turns: Iterable[tuple[Users, bool, bool]]) -> None:
        set_aside = SetAside(work.db, work.state, self.key)
        for turn, is_sweep, nothing_written in turns:
            work.is_sweep = is_sweep
            work.users_examined += turn.size
            set_aside.begin(work.written)
            for users in set_aside.apart(turn, work.slices):
                self._examine(work, set_aside, users, nothing_written=nothing_written)
        work.users_set_aside += set_aside.save()

    def _count(self, work: Work, before: int) -> None:
        """What is completed by an open slice is limited together with what all others complete.

        :param before: what had been completed before the slice
        """
        completed = work.written.completed - before
        work.swept = work.open_slices.count(self.id, completed, work.as_of)
        # Others may have gone on meanwhile.
        work.state.completed = work.swept - completed
        work.require_few()
        work.state.completed = work.swept

    def _must_wait(self, work: Work, *, is_anew: bool) -> bool:
        """Whether the users of the challenge that this one comes after are still in open slices, before it begins."""
        if self.after is None or not self.is_split or work.full_scan:
            return False
        if not is_anew and work.state.phase is Phase.WATCHING:
            return False
        if work.open_slices.are_left(work.state):
            return False
        work.swept = work.state.completed
        return work.open_slices.must_wait(self.after, work.settings.workers)

    def _close_slices(self, work: Work) -> None:
        work.open_slices.close(work.state)
        work.swept = work.state.completed

    @abstractmethod
    def explain(self, asked: Asked) -> Answer:
        """What it demands of a user, what he has, and what the next run that examines him writes. Writes nothing."""

    def resume(self, work: Work) -> None:  # noqa: B027 - as a rule there is nothing more to do
        """Everybody is examined again, by the run."""

    def pause(self, work: Work) -> None:
        """Nothing moves; once active again, the catalog row differs from what was seen, and everybody is examined."""
        self._close_slices(work)
        work.state.catalog_seen = None
        work.state.look = None

    def start_from_now(self, work: Work) -> int:
        """Follow changes from here on; what was there before is left to the sweep, but for deeds that are passed over.

        :returns: how many deeds are passed over
        """
        self._close_slices(work)
        sweep.forget_completed(work)
        work.feed.follow(work.state, self._followed(work))
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint
        work.state.sweep_position = None
        work.state.nothing_written = False
        work.state.is_exempt = False
        return self.pass_over(work) or 0

    def begin_full_scan(self, work: Work) -> None:
        """Have everybody examined again by the runs that come; those that have begun a round begin it anew."""
        self._close_slices(work)
        sweep.forget_completed(work)
        work.state.phase = Phase.CATCHING_UP
        work.state.sweep_position = None
        work.state.nothing_written = False

    def pass_over(self, work: Work) -> int | None:  # noqa: ARG002 - as a rule no single deeds are rewarded
        """Pass over the deeds that are there, for good, whatever the catalog says.

        :returns: how many; None: there are no deeds to pass over
        """
        return None

    def _followed(self, work: Work) -> list[Source]:
        """The sources, without those that lack an index to go by; where one comes or goes, everybody is examined."""
        return [source for source in self.sources if source.index is None or source.index in work.db.indexes]

    def _examine(self, work: Work, set_aside: SetAside, users: Users, *, nothing_written: bool) -> None:
        """Reconcile these users; if one of them cannot be, halve until he stands alone, and then his deeds."""
        if not users.size:
            return
        set_aside.tries(users)
        try:
            self.reconcile(work, users, nothing_written=nothing_written)
        except Exception as error:
            if not may_be_one_users(work.db, error):
                raise
            parts = users.halves(work.slices) or self._named_deeds(work, set_aside, users)
            if not parts:
                set_aside.failed(users, error)
        else:
            return
        for part in parts:
            self._examine(work, set_aside, part, nothing_written=nothing_written)

    def _named_deeds(self, work: Work, set_aside: SetAside, user: Users) -> tuple[Users, ...]:
        """The user with all his deeds, named, so that they can be halved; nothing where they cannot be."""
        if user.deeds is not None:
            return ()
        try:
            deeds = self.deeds(work, user)
        except Exception as error:
            if not may_be_one_users(work.db, error):
                raise
            return ()
        set_aside.earners.update(deeds)
        return (replace(user, deeds=list(deeds)),) if deeds else ()

    def _turn(self, work: Work) -> Iterator[tuple[Users, bool, bool]]:
        """Whose turn it is in this run, whether it is the sweep's, and whether nothing of theirs was ever written."""
        if work.full_scan:
            for users in sweep.all_slices(work):
                yield users, True, False
            return
        state = work.state
        nothing_written = work.is_first_build and state.nothing_written
        if self.is_split and work.is_behind and sweep.is_cut(work):
            # Nobody else is examined until all slices are written (see `open_slices`).
            work.is_by_slices = True
            taken = work.open_slices.take(self.id, work.slices)
            work.is_waiting = taken is None
            if taken is not None:
                yield taken, True, nothing_written
            return
        affected = set() if work.is_first_build else self._changed(work)
        if due := self.due_of(work):
            affected |= {row["user_id"] for row in work.db.rows(due, as_of=work.as_of)}
        is_by_rounds = self.round_users is not None and state.phase is Phase.WATCHING
        for users in sweep.next_slices(work):
            if not is_by_rounds:
                affected = users.outside(affected)
                yield users, True, nothing_written
        if is_by_rounds and state.round_completed:
            of_round = self._of_round(work).union(state.set_aside)
            affected -= of_round
            yield Users.listed(of_round), True, False
        yield Users.listed(affected), False, False

    def _of_round(self, work: Work) -> set[int]:
        """The users to examine once the sweep has come round."""
        found = work.db.rows(self.round_users or "", starting_block=work.challenge.starting_block)
        return {row["user_id"] for row in found}

    def _changed(self, work: Work) -> set[int]:
        """The users affected by changes; too many of them are left to the sweep, which then takes everybody."""
        state, limit, sources = work.state, work.settings.changed_users, self._followed(work)
        changed = work.feed.changed_users(state, sources, limit)
        is_overflow = len(changed) > limit
        if is_overflow and state.phase is Phase.CATCHING_UP:
            # What the sweep has passed already waits, unread, until it has come round.
            return set()
        work.feed.advance(state, sources, found=bool(changed))
        if is_overflow:
            sweep.restart(work)
            return set()
        return changed
