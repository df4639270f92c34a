"""A row of the catalog, and what it means."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from audius_challenges.database import Database
from audius_challenges.errors import ChallengeError
from audius_challenges.settings import MAX_INTEGER
from audius_challenges.sources import columns_read


@dataclass(frozen=True)
class Challenge:
    """A row of the catalog.

    :ivar amount_text: the amount as it stands there; `amount` is what it means
    :ivar step_count: how many steps complete the challenge, or None
    :ivar starting_block: the first block whose rows count; 0 where the catalog has none (rule 9)
    :ivar fingerprint: what of the row decides rewards, as JSON; when it changes, everybody is examined again
    """

    id: str
    amount_text: str | None
    active: bool
    step_count: int | None
    starting_block: int
    fingerprint: str

    @property
    def amount(self) -> int:
        """The amount in whole $AUDIO (rule 5).

        :raises ChallengeError: naming the challenge and the value
        """
        text = (self.amount_text or "").strip()
        if not re.fullmatch(r"[0-9]+", text) or int(text) > MAX_INTEGER:
            raise ChallengeError(
                f'challenge "{self.id}" has an invalid amount in the catalog: "{self.amount_text}"',
                detail=f"An amount must be a whole number from 0 to {MAX_INTEGER}.",
                hint=f"UPDATE challenges SET amount = ... WHERE id = '{self.id}';",
            )
        return int(text)

    @property
    def target(self) -> int:
        """How many steps complete a numeric challenge.

        :raises ChallengeError: if the catalog's step_count is null or below 1
        """
        if self.step_count is None or self.step_count < 1:
            given = "null" if self.step_count is None else self.step_count
            raise ChallengeError(
                f'challenge "{self.id}" has an invalid step_count in the catalog: {given}',
                detail="This challenge needs a step_count of at least 1.",
                hint=f"UPDATE challenges SET step_count = ... WHERE id = '{self.id}';",
            )
        return self.step_count


def require_known(challenge_ids: Sequence[str | None], known: Collection[str]) -> None:
    """Demand ids of challenges that there are.

    :raises ChallengeError: naming the first that is null or unknown, and the known ones
    """
    for challenge_id in challenge_ids:
        if challenge_id not in known:
            is_null = challenge_id is None
            raise ChallengeError(
                "a challenge id must not be null" if is_null else f'unknown challenge id: "{challenge_id}"',
                hint=f"The challenges are {', '.join(known)}.",
            )


def absent_challenge(challenge_id: str) -> Challenge:
    """What stands for a row that is absent: a challenge that is not active."""
    return Challenge(challenge_id, None, False, None, 0, "")


_LOAD = """
    SELECT
        challenges.id,
        challenges.amount AS amount_text,
        coalesce(challenges.active, FALSE) AS active,
        challenges.step_count,
        coalesce(challenges.starting_block, 0) AS starting_block,
        json_build_array(
            coalesce(challenges.active, FALSE),
            challenges.amount,
            challenges.step_count,
            coalesce(challenges.starting_block, 0)
        )::text AS fingerprint
    FROM discovery.challenges
    WHERE NOT EXISTS (
        SELECT FROM audius_challenges.processor_state AS state
        WHERE state.challenge_id = challenges.id::text
            AND NOT state.is_asked_for
    )
"""

CATALOG = columns_read(_LOAD)


def load_catalog(db: Database) -> dict[str, Challenge]:
    """Read the whole catalog, by id; a challenge that waits to be asked for is as one without a row."""
    return {row["id"]: Challenge(**row) for row in db.rows(_LOAD)}
