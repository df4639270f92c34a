"""r, rv, rd, referrals: who brings a user is paid, up to a cap, and who is brought, once."""

from __future__ import annotations

from tests.model.rows import UserEvent
from tests.model.rules import ChallengeError, Rule, Terms, specifier_of


def pair_of(first: int, second: int) -> str:
    """The specifier of two users."""
    return f"{specifier_of(first)}:{specifier_of(second)}"


class ReferralRule(Rule):
    """What the three have in common."""

    def referrals(self, terms: Terms) -> list[tuple[int, int]]:
        """Referrer and referred, both active, in the order of the rows that say so."""
        deciding: dict[int, UserEvent] = {}
        for row in sorted(self.sources.user_events, key=lambda row: (row.blocknumber or 0, row.id)):
            if row.is_current:
                deciding[row.user_id] = row
        return [
            (row.referrer, row.user_id)
            for row in sorted(deciding.values(), key=lambda row: (row.blocknumber or 0, row.id))
            if row.referrer is not None
            and row.referrer != row.user_id
            and (row.blocknumber or 0) >= terms.starting_block
            and self.model.person(row.referrer)
            and self.model.person(row.user_id)
        ]

    def known(self, *challenges: str) -> set[str]:
        """The specifiers of rows and disbursements."""
        rows = {specifier for challenge, specifier in self.model.user_challenges if challenge in challenges}
        return rows | {row.specifier for row in self.sources.challenge_disbursements if row.challenge_id in challenges}


class Referrer(ReferralRule):
    IDS = ("r", "rv")

    def reconcile(self, terms: Terms) -> None:
        challenge = self.sources.challenges.get(terms.id)
        if challenge is None or challenge.step_count is None or challenge.step_count < 1:
            raise ChallengeError(terms.id, "step_count")
        for referrer, referred in self.referrals(terms):
            person, specifier = self.model.person(referrer), pair_of(referrer, referred)
            if person is None or person.is_verified != (terms.id == "rv") or specifier in self.known("r", "rv"):
                continue
            taken = [known for known in self.known(terms.id) if known.split(":")[0] == specifier_of(referrer)]
            if len(taken) < challenge.step_count:
                self.progress(terms, referrer, specifier, 1)


class Referred(ReferralRule):
    IDS = ("rd",)

    def reconcile(self, terms: Terms) -> None:
        paid_for = {known.split(":")[0] for known in self.known("rd")}
        for referrer, referred in self.referrals(terms):
            if specifier_of(referred) not in paid_for:
                self.progress(terms, referred, pair_of(referred, referrer), 1)
