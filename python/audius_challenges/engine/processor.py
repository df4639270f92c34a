"""What a processor is, and what one run hands to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from audius_challenges.annotations import Protocol
from audius_challenges.catalog import Challenge
from audius_challenges.database import Database
from audius_challenges.engine.explanation import Answer, Asked
from audius_challenges.engine.feed import Feed
from audius_challenges.engine.open_slices import OpenSlices
from audius_challenges.engine.state import Phase, State
from audius_challenges.engine.totals import Backfill
from audius_challenges.engine.users import Slices
from audius_challenges.engine.writing import Written, write_user_challenges
from audius_challenges.errors import PROGRAM_LIMIT_EXCEEDED, ChallengeError
from audius_challenges.settings import PREFIX, Settings
from audius_challenges.sources import Reads

_HAS_USER_CHALLENGES = """
    SELECT count(*) > 0
    FROM (
        SELECT user_challenges.specifier
        FROM discovery.user_challenges
        WHERE user_challenges.challenge_id::text = :challenge_id::text
        ORDER BY user_challenges.challenge_id, user_challenges.specifier
        LIMIT 1
    ) AS any_row
"""


@dataclass
class Work:
    """One processor's part of one run.

    :ivar feed: the sources, as this run reads them
    :ivar slices: slices of users, as this run reads them
    :ivar open_slices: users whom several sessions examine
    :ivar challenge: its catalog row
    :ivar state: what is remembered of it; the processor changes it, the run saves it
    :ivar backfill: how far its past is counted
    :ivar as_of: the run's clock, a timestamptz as text
    :ivar full_scan: whether every user is to be examined
    :ivar without_past: what leaves out what was earned before the challenge began here, if anything does
    :ivar users_examined: users (or ranked entries) examined so far in this run
    :ivar users_set_aside: users who were set aside in this run, and had not been before
    :ivar written: what was written so far in this run
    :ivar told: what the history has of these counts already
    :ivar is_first_build: whether the run is (part of) the challenge's first build
    :ivar is_first_round: whether it is part of the sweep's first round
    :ivar is_behind: whether there were users whom no run had examined when it began
    :ivar is_node: whether this is a node of shares, which writes none of what the primary decides
    :ivar waits_for: why nothing was done though the challenge is active; None: it was
    :ivar goes_on: whether more is there that can be done at once
    :ivar is_exempt: whether completions are not limited
    :ivar is_by_slices: whether the users being examined are an open slice, or all of them are in other hands
    :ivar is_waiting: whether nothing could be done, as others have to come to an end first
    :ivar is_sweep: whether the users being examined are the sweep's slice
    :ivar swept: how many rewards the first round has completed, or the open slices of this one, this run's included
    """

    db: Database
    feed: Feed
    slices: Slices
    open_slices: OpenSlices
    challenge: Challenge
    state: State
    backfill: Backfill
    settings: Settings
    as_of: str
    full_scan: bool
    without_past: str | None = None
    users_examined: int = 0
    users_set_aside: int = 0
    written: Written = field(default_factory=Written)
    told: Mapping[str, int] = field(default_factory=dict)
    is_first_build: bool = False
    is_first_round: bool = False
    is_node: bool = False
    waits_for: str | None = None
    goes_on: bool = False
    is_exempt: bool = field(init=False)
    is_by_slices: bool = False
    is_waiting: bool = False
    is_sweep: bool = False
    is_behind: bool = False
    swept: int = field(init=False)

    def __post_init__(self) -> None:
        # The primary of shares limits what it writes; what a node has derived is not paid yet.
        self.is_exempt, self.swept = self.state.is_exempt or self.is_node, self.state.completed

    def add_to(self, before: Work) -> None:
        """Go on counting where the work on another slice has ended."""
        self.users_examined, self.users_set_aside = before.users_examined, before.users_set_aside
        self.written.add(before.written)
        self.told = before.told

    def untold(self) -> dict[str, int]:
        """What was counted since the last call, by the columns of the history: written now, or lost with the work."""
        counts = {
            "users_examined": self.users_examined,
            "rows_inserted": self.written.inserted,
            "rows_updated": self.written.updated,
            "rows_completed": self.written.completed,
            "users_set_aside": self.users_set_aside,
        }
        before, self.told = self.told, counts
        return {name: count - before.get(name, 0) for name, count in counts.items()}

    @property
    def is_unfinished(self) -> bool:
        """Whether there is more to do: of a first build that goes on, or waits, of open slices, or what nodes sent."""
        is_building = self.is_first_build and self.state.phase is Phase.FIRST_BUILD
        return is_building or self.is_by_slices or self.is_waiting or self.goes_on

    @property
    def is_of_first_round(self) -> bool:
        """Whether what is written now belongs to the first round.

        Once the past was left out, it is what the sweep finds: what comes in is limited by the run alone.
        """
        return self.is_first_round and (self.is_sweep or self.is_behind)

    def write(
        self,
        wanted: str,
        *,
        only_new: bool = False,
        unless: str = "FALSE",
        at_once: bool = False,
        nothing_written: bool = False,
        **values: object,
    ) -> None:
        """Write user challenges (see `write_user_challenges`), within the limit of completions.

        :raises ChallengeError: if more than `max_completions` are completed, in this run or in the first round, unless
            the challenge is exempt
        """
        written = write_user_challenges(
            self.db,
            wanted,
            only_new=only_new,
            unless=unless,
            at_once=at_once,
            nothing_written=nothing_written,
            backfill=self.backfill,
            challenge_id=self.challenge.id,
            **values,
        )
        self.written.add(written)
        if self.is_of_first_round or self.is_by_slices:
            self.swept += written.completed
        self.require_few()

    def require_few(self) -> None:
        """Demand that no more is completed than may be (see `write`); what open slices complete is one run's."""
        if self.is_exempt:
            return
        name, limit = self.challenge.id, self.settings.max_completions
        let_pass = (
            f"SET {PREFIX}max_completions = ...; SELECT * FROM reconcile_challenges('{{{name}}}', full_scan => true);"
        )
        completed = self.swept if self.is_by_slices else self.written.completed
        if completed > limit and not self.is_of_first_round:
            raise ChallengeError(
                f'challenge "{name}" would complete at least {completed} rewards in one run;'
                f" {PREFIX}max_completions is {limit}",
                sqlstate=PROGRAM_LIMIT_EXCEEDED,
                detail="Nothing was written for it. A mass completion must be approved first.",
                hint="Check its row in challenges and what changed in its source tables."
                f" If it is intended: {let_pass}",
            )
        if self.is_first_round and self.swept > limit:
            leave_out = f"To leave its past out: {self.without_past} " if self.without_past else ""
            raise ChallengeError(
                f'challenge "{name}" would complete at least {self.swept} rewards in its first round;'
                f" {PREFIX}max_completions is {limit}",
                sqlstate=PROGRAM_LIMIT_EXCEEDED,
                detail=f"Nothing was written for it in this run; earlier runs of the round completed"
                f" {self.state.completed}. It begins in a database that has paid before, so its past must be"
                " approved first.",
                hint=f"{leave_out}To pay it: {let_pass}",
            )

    def has_user_challenges(self) -> bool:
        """Whether the challenge has any user challenge, so that this cannot be its first build."""
        # The order makes it one look into the primary key, whatever the statistics say.
        found: bool = self.db.value(_HAS_USER_CHALLENGES, challenge_id=self.challenge.id)
        return found


class Processor(Protocol):
    """The code that derives the user challenges of one challenge from source tables."""

    @property
    def id(self) -> str:
        """The challenge id."""

    @property
    def description(self) -> str:
        """What the challenge rewards, in a few words."""

    @property
    def without_past(self) -> str | None:
        """What an operator does to leave out what was earned before the challenge began here, if anything does."""

    @property
    def reads(self) -> Reads:
        """The tables and columns of the discovery schema that the processor needs."""

    @property
    def statements(self) -> Mapping[str, str]:
        """The SQL that is the challenge's own, by what it does, as runs execute it."""

    def run(self, work: Work) -> None:
        """Bring the user challenges to what the source tables say; running again changes nothing.

        :raises ChallengeError: if the catalog row makes no sense, or there are too many completions
        """

    def resume(self, work: Work) -> None:
        """Called before `run` when the challenge is found active again; what it writes stays even if the run fails."""

    def pause(self, work: Work) -> None:
        """Called instead of `run` while the challenge is inactive; writes no user challenge."""

    def explain(self, asked: Asked) -> Answer:
        """What it demands of a user, what he has, and what the next run that examines him writes. Writes nothing.

        :raises ChallengeError: if the catalog row makes no sense, or the next run would fail as a whole
        """

    def start_from_now(self, work: Work) -> int:
        """Take what there is as done: follow changes from the present on, without a first build.

        :returns: how many deeds are passed over
        """

    def pass_over(self, work: Work) -> int | None:
        """Pass over the deeds that are there, for good, whatever the catalog says.

        :returns: how many; None: there are no deeds to pass over
        """
