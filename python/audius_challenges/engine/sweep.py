"""The sweep: a cursor that walks all user ids, a bounded slice a run, round and round.

It is the first build, it catches up after a change of the catalog, and it finds whatever leaves no trace in the columns
that the feed goes by.
"""

from __future__ import annotations

from collections.abc import Iterator

from audius_challenges.engine.processor import Work
from audius_challenges.engine.state import Phase
from audius_challenges.engine.users import Users


def restart(work: Work) -> bool:
    """Begin the sweep anew, and tell whether it is the first, of a challenge without any user challenge."""
    state, fingerprint = work.state, work.challenge.fingerprint
    is_new = state.phase is None and not work.has_user_challenges()
    is_resumed = state.phase is Phase.FIRST_BUILD and state.catalog_seen == fingerprint
    state.phase = Phase.FIRST_BUILD if is_new or is_resumed else Phase.CATCHING_UP
    state.catalog_seen = fingerprint
    state.sweep_position = None
    return is_new


def next_slices(work: Work) -> list[Users]:
    """The next users of the sweep. Once it is watching, the first follow the last: a small database is one slice."""
    state, settings = work.state, work.settings
    if state.phase is not Phase.WATCHING:
        return [_next_slice(work, settings.slice_users)]
    size, began_at = settings.sweep_users, state.sweep_position
    if size == 0:
        return []
    slices = [_next_slice(work, size)]
    if slices[0].size < size and began_at is not None:
        slices.append(work.slices.between(None, began_at, size - slices[0].size))
        if slices[1].size:
            state.sweep_position = slices[1].greatest
    return slices


def all_slices(work: Work) -> Iterator[Users]:
    """Everybody, in a round of their own."""
    position: int | None = None
    while (users := work.slices.between(position, None, work.settings.slice_users)).size:
        yield users
        position = users.greatest
    work.state.complete_round()


def _next_slice(work: Work, size: int) -> Users:
    users = work.slices.between(work.state.sweep_position, None, size)
    if users.size < size:
        work.state.complete_round()
    else:
        work.state.sweep_position = users.greatest
    return users
