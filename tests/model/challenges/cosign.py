"""cs, cosign: what somebody has made of an artist's track, and the artist saves or reposts; five in any 30 days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.model.rows import Repost, Save, UserChallenge
from tests.model.rules import Deed, DeedsRule, Terms, completed

CLOCKS_DIFFER = timedelta(minutes=5)
SPAN = timedelta(days=30)
MOST = 5


@dataclass(frozen=True, kw_only=True)
class Cosigned(Deed):
    """A remix that an artist has cosigned, and when."""

    artist: int
    remix: int
    at: datetime


class Cosign(DeedsRule):
    IDS = ("cs",)

    def reconcile(self, terms: Terms) -> None:
        known = self.known(terms.id)
        for deed in sorted(self.deeds(terms), key=lambda deed: (deed.at, deed.remix)):
            if known.isdisjoint((deed.specifier, *deed.earlier)) and self.has_room(deed):
                row = UserChallenge(
                    terms.id,
                    deed.specifier,
                    deed.user_id,
                    False,
                    1,
                    None,
                    terms.amount,
                    deed.at.replace(tzinfo=UTC),
                    None,
                )
                self.model.user_challenges[terms.id, deed.specifier] = completed(row, terms.as_of, terms.block)

    def deeds(self, terms: Terms) -> Iterator[Cosigned]:
        for artist, remix in sorted(self.pairs(they_count=True)):
            person, maker = self.model.person(artist), self.maker(remix)
            times = [like.created_at for like in self.likes(artist, remix) if self.counts(like, terms)]
            if person and person.is_verified and times and maker not in {None, artist} and self.model.person(maker):
                yield Cosigned(
                    maker or 0, pair_of(artist, remix), (f"{remix:x}",), artist=artist, remix=remix, at=min(times)
                )

    def every_deed(self) -> Iterator[str]:
        for artist, remix in self.pairs(they_count=False):
            if self.likes(artist, remix):
                yield pair_of(artist, remix)

    def pairs(self, *, they_count: bool) -> set[tuple[int, int]]:
        """Artists and remixes of their tracks; by whatever versions, or only by those that count."""
        return {
            (track.owner_id, made.child_track_id)
            for made in self.sources.remixes
            for track in self.sources.tracks
            if track.track_id == made.parent_track_id and (not they_count or (track.is_current and not track.is_delete))
        }

    def likes(self, artist: int, track_id: int) -> list[Save | Repost]:
        """Saves and reposts of a track by somebody, whether they count or not."""
        found: list[Save | Repost] = [
            row for row in self.sources.saves if row.save_item_id == track_id and row.save_type == "track"
        ]
        found += [row for row in self.sources.reposts if row.repost_item_id == track_id and row.repost_type == "track"]
        return [row for row in found if row.user_id == artist]

    def counts(self, like: Save | Repost, terms: Terms) -> bool:
        latest = terms.as_of.astimezone(UTC).replace(tzinfo=None) + CLOCKS_DIFFER
        is_early = (like.blocknumber or 0) < terms.starting_block
        return like.is_current and not like.is_delete and not is_early and like.created_at <= latest

    def maker(self, track_id: int) -> int | None:
        """Who has made a track, if it is there."""
        versions = [
            row for row in self.sources.tracks if row.track_id == track_id and row.is_current and not row.is_delete
        ]
        return max(versions, key=lambda row: (row.blocknumber or 0, row.txhash)).owner_id if versions else None

    def has_room(self, deed: Cosigned) -> bool:
        """Whether no span that ends with a reward of the artist, and has this one in it, would hold too many."""
        times = [
            row.created_at.astimezone(UTC).replace(tzinfo=None)
            for (challenge, specifier), row in self.model.user_challenges.items()
            if challenge == "cs" and specifier.startswith(f"{deed.artist:x}:")
        ]
        times.append(deed.at)
        ends = [end for end in times if end - SPAN <= deed.at <= end]
        return all(sum(end - SPAN <= at <= end for at in times) <= MOST for end in ends)


def pair_of(artist: int, remix: int) -> str:
    """The specifier of a remix that an artist has cosigned."""
    return f"{artist:x}:{remix:x}"
