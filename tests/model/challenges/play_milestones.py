"""p1, p2, p3, play milestones: plays of a verified artist's tracks, each milestone once the one before is reached."""

from datetime import date

from tests.model.rules import Rule, Terms, specifier_of

PLAYS_COUNT_FROM = date(2025, 1, 1)
MILESTONES = {"p1": "250", "p2": "1000", "p3": "10000"}
PREVIOUS_MILESTONE = {"p2": "p1", "p3": "p2"}


def milestone_specifier(challenge: str, user_id: int) -> str:
    """Hex user id and the milestone, whatever the catalog's step_count is."""
    return f"{specifier_of(user_id)}:{MILESTONES[challenge]}"


class PlayMilestone(Rule):
    IDS = tuple(MILESTONES)

    def reconcile(self, terms: Terms) -> None:
        for person in self.model.people():
            if person.is_verified and self.may_begin(terms.id, person.user_id):
                specifier = milestone_specifier(terms.id, person.user_id)
                self.progress(terms, person.user_id, specifier, self.plays_of(person.user_id))

    def may_begin(self, challenge: str, user_id: int) -> bool:
        previous = PREVIOUS_MILESTONE.get(challenge)
        if previous is None:
            return True
        gate = self.model.user_challenges.get((previous, milestone_specifier(previous, user_id)))
        return gate is not None and gate.is_complete

    def plays_of(self, user_id: int) -> int:
        owned = {
            row.track_id
            for row in self.sources.tracks
            if row.owner_id == user_id and row.is_current and not row.is_delete
        }
        return sum(
            row.count
            for row in self.sources.aggregate_monthly_plays
            if row.play_item_id in owned and row.timestamp >= PLAYS_COUNT_FROM
        )
