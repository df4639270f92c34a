"""fp, first playlist: any playlist or album from the starting block on."""

from tests.model.rows import User
from tests.model.rules import StepsRule, Terms


class FirstPlaylist(StepsRule):
    IDS = ("fp",)

    def steps(self, person: User, terms: Terms) -> int:
        return any(
            row.playlist_owner_id == person.user_id
            and row.is_current
            and not row.is_delete
            and (row.blocknumber or 0) >= terms.starting_block
            for row in self.sources.playlists
        )
