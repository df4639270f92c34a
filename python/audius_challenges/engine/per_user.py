"""Processors that take users: those whose rows have changed, and the sweep's slice, whatever they then do with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from audius_challenges.engine import sweep
from audius_challenges.engine.processor import Work
from audius_challenges.engine.state import Phase
from audius_challenges.engine.users import Users
from audius_challenges.sources import USERS, Source


class PerUser(ABC):
    """A processor of this kind."""

    id: str
    description: str

    @property
    def sources(self) -> tuple[Source, ...]:
        """Whose changed rows affect which users; the user's own row always does."""
        return (USERS,)

    @property
    def due(self) -> str | None:
        """SQL of the ids of the users to examine at every run, for what leaves no trace in a source."""
        return None

    @abstractmethod
    def reconcile(self, work: Work, users: Users, *, nothing_written: bool) -> None:
        """Bring the user challenges of these users to what the source tables say.

        :param nothing_written: whether no row of theirs was ever written, so that none need be looked up
        """

    def run(self, work: Work) -> None:
        """Examine what changed and a slice of the sweep; with `full_scan`, everybody."""
        state = work.state
        is_followed = work.feed.is_followed(state, self.sources)
        if not is_followed or state.catalog_seen != work.challenge.fingerprint:
            is_new = sweep.restart(work)
            # Users who are due come out of turn, so that their rows may be there before their slice.
            state.nothing_written = is_new and not self.due
        if not is_followed:
            work.feed.follow(state, self.sources)
        work.is_first_build = state.phase is Phase.FIRST_BUILD
        for users, nothing_written in self._turn(work):
            if users.size:
                work.users_examined += users.size
                self.reconcile(work, users, nothing_written=nothing_written)

    def resume(self, work: Work) -> None:  # noqa: B027 - as a rule there is nothing more to do
        """Everybody is examined again, by the run."""

    def pause(self, work: Work) -> None:
        """Nothing moves; once active again, the catalog row differs from what was seen, and everybody is examined."""
        work.state.catalog_seen = None
        work.state.look = None

    def start_from_now(self, work: Work) -> None:
        """Follow changes from here on; what was there before is left to the sweep."""
        work.feed.follow(work.state, self.sources)
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint
        work.state.sweep_position = None
        work.state.nothing_written = False

    def _turn(self, work: Work) -> Iterator[tuple[Users, bool]]:
        """Whose turn it is in this run, and whether nothing of theirs was ever written."""
        if work.full_scan:
            for users in sweep.all_slices(work):
                yield users, False
            return
        affected = set() if work.is_first_build else self._changed(work)
        if self.due:
            affected.update(row["user_id"] for row in work.db.rows(self.due))
        nothing_written = work.is_first_build and work.state.nothing_written
        for users in sweep.next_slices(work):
            affected = users.outside(affected)
            yield users, nothing_written
        yield Users.listed(affected), False

    def _changed(self, work: Work) -> set[int]:
        """The users affected by changes; too many of them are left to the sweep, which then takes everybody."""
        state, limit = work.state, work.settings.changed_users
        changed = work.feed.changed_users(state, self.sources, limit)
        is_overflow = len(changed) > limit
        if is_overflow and state.phase is Phase.CATCHING_UP:
            # What the sweep has passed already waits, unread, until it has come round.
            return set()
        work.feed.advance(state, self.sources, found=bool(changed))
        if is_overflow:
            sweep.restart(work)
            return set()
        return changed
