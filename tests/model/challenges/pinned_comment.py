"""cp, pinned comment: what somebody else has written under the track of a verified artist, who pins it."""

from tests.model.rows import Comment, Track
from tests.model.rules import Rule, Terms, specifier_of


class PinnedComment(Rule):
    IDS = ("cp",)

    def reconcile(self, terms: Terms) -> None:
        for track in self.sources.tracks:
            comment = self.sources.comments.get(track.pinned_comment_id)
            if comment and self.counts(track, comment):
                specifier = f"{specifier_of(comment.user_id)}:{track.track_id:x}"
                self.progress(terms, comment.user_id, specifier, 1)

    def counts(self, track: Track, comment: Comment) -> bool:
        owner = self.model.person(track.owner_id)
        return (
            track.is_current
            and not track.is_delete
            and not comment.is_delete
            and comment.entity_type.lower() == "track"
            and comment.entity_id == track.track_id
            and comment.user_id != track.owner_id
            and owner is not None
            and owner.is_verified
            and self.model.person(comment.user_id) is not None
        )
