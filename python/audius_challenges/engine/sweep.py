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
    forget_completed(work)
    return is_new


def forget_completed(work: Work) -> None:
    """What the open slices of a round have completed counts no further; but in the first round all of it does."""
    if work.state.sweep_rounds:
        work.state.completed = work.swept = 0


def is_cut(work: Work) -> bool:
    """Whether the users whom the round has yet to come to are in open slices; cuts them if they are more than one."""
    state, settings = work.state, work.settings
    if work.open_slices.are_left(state):
        return True
    work.swept = state.completed
    if settings.workers == 1:
        return False
    if work.slices.between(state.sweep_position, None, settings.slice_users).size < settings.slice_users:
        return False
    state.sweep_position = work.open_slices.cut(state, work.slices.key, settings.slice_users)
    return True


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
