"""m, mobile install: the latest of the user's current events says that he has come by a mobile app."""

from collections.abc import Iterator

from tests.model.rows import UserEvent
from tests.model.rules import Deed, DeedsRule, Terms, specifier_of


class MobileInstall(DeedsRule):
    IDS = ("m",)

    def deeds(self, terms: Terms) -> Iterator[Deed]:
        deciding: dict[int, UserEvent] = {}
        for row in sorted(self.sources.user_events, key=lambda row: (row.blocknumber or 0, row.id)):
            if row.is_current:
                deciding[row.user_id] = row
        for user_id, row in deciding.items():
            if row.is_mobile_user and (row.blocknumber or 0) >= terms.starting_block:
                yield Deed(user_id, specifier_of(user_id))

    def every_deed(self) -> Iterator[str]:
        return (specifier_of(row.user_id) for row in self.sources.user_events if row.is_mobile_user)
