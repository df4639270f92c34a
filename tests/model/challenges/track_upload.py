"""u, track upload: public tracks from the starting block on."""

from tests.model.rows import User
from tests.model.rules import StepsRule, Terms


class TrackUpload(StepsRule):
    IDS = ("u",)

    def steps(self, person: User, terms: Terms) -> int:
        uploads = {
            row.track_id
            for row in self.sources.tracks
            if row.owner_id == person.user_id
            and row.is_current
            and not row.is_delete
            and not row.is_unlisted
            and row.stem_of is None
            and (row.blocknumber or 0) >= terms.starting_block
        }
        return len(uploads)
