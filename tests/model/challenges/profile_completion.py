"""p, profile completion: seven steps, each of which is shown in a table of its own."""

from tests.model.rows import ProfileCompletion as Steps
from tests.model.rows import User
from tests.model.rules import Rule, Terms, specifier_of

FOLLOWS_NEEDED = 5


class ProfileCompletion(Rule):
    IDS = ("p",)

    def reconcile(self, terms: Terms) -> None:
        shown = self.model.challenge_profile_completion
        for person in self.model.people():
            if person.handle_lc is None:
                continue
            steps = self.steps_of(person)
            if steps.steps() >= 1 or person.user_id in shown:
                shown[person.user_id] = steps
            self.progress(terms, person.user_id, specifier_of(person.user_id), steps.steps())

    def steps_of(self, person: User) -> Steps:
        user_id = person.user_id
        followees = {
            row.followee_user_id
            for row in self.sources.follows
            if row.follower_user_id == user_id and row.is_current and not row.is_delete
        }
        return Steps(
            user_id=user_id,
            profile_description=person.bio is not None,
            profile_name=person.name is not None,
            profile_picture=(person.profile_picture, person.profile_picture_sizes) != (None, None),
            profile_cover_photo=(person.cover_photo, person.cover_photo_sizes) != (None, None),
            follows=len(followees) >= FOLLOWS_NEEDED,
            favorites=any(
                row.user_id == user_id and row.is_current and not row.is_delete for row in self.sources.saves
            ),
            reposts=any(
                row.user_id == user_id and row.is_current and not row.is_delete for row in self.sources.reposts
            ),
        )
