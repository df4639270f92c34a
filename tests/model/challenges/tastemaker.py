"""t, tastemaker: who reposted or saved a track first, once it is among the ten that trend; decided once."""

from datetime import timedelta

from tests.model.challenges.trending import WINNERS, Trending
from tests.model.rows import Repost, Save
from tests.model.rules import Model, Rule, Terms, specifier_of

FIRST = 10
SKEW = timedelta(minutes=5)


class Tastemaker(Rule):
    IDS = ("t",)

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.decided: set[int] = set()

    def reconcile(self, terms: Terms) -> None:
        trending = self.model.rules["tt"]
        assert isinstance(trending, Trending)
        for track_id, owner in trending.trending_tracks()[:WINNERS]:
            if track_id not in self.decided:
                self.decided.add(track_id)
                if not self.is_rewarded(track_id):
                    for user_id in self.winners(track_id, owner, terms):
                        self.progress(terms, user_id, f"{specifier_of(user_id)}:t:{track_id:x}", 1)

    def is_rewarded(self, track_id: int) -> bool:
        return any(
            challenge == "t" and specifier.endswith(f":t:{track_id:x}")
            for challenge, specifier in self.model.user_challenges
        )

    def winners(self, track_id: int, owner: int, terms: Terms) -> set[int]:
        saves = [row for row in self.sources.saves if (row.save_item_id, row.save_type) == (track_id, "track")]
        reposts = [row for row in self.sources.reposts if (row.repost_item_id, row.repost_type) == (track_id, "track")]
        return {*self.first(saves, owner, terms), *self.first(reposts, owner, terms)}

    def first(self, rows: list[Save] | list[Repost], owner: int, terms: Terms) -> list[int]:
        latest = terms.as_of.replace(tzinfo=None) + SKEW
        times = sorted(
            (row.created_at, row.user_id)
            for row in rows
            if row.is_current
            and not row.is_delete
            and row.user_id != owner
            and row.created_at <= latest
            and self.model.person(row.user_id)
        )
        return list(dict.fromkeys(user_id for _, user_id in times))[:FIRST]
