"""b and s, audio matching: whole dollars of purchases, to the buyer and to the verified seller."""

from __future__ import annotations

from dataclasses import replace

from tests.model.rows import Playlist, Purchase, Track
from tests.model.rules import GREATEST_INTEGER, Rule, Terms, specifier_of


class AudioMatching(Rule):
    IDS = ("b", "s")

    def reconcile(self, terms: Terms) -> None:
        first: dict[str, tuple[int, int]] = {}
        for purchase in sorted(self.sources.sol_purchases, key=order):
            earner = self.earner(purchase, terms)
            if earner is not None:
                specifier = f"{specifier_of(purchase.buyer_user_id)}:{specifier_of(purchase.content_id)}"
                first.setdefault(specifier, (earner, purchase.amount // 1_000_000))
        for specifier, (user_id, dollars) in first.items():
            amount = terms.amount * dollars
            if self.model.person(user_id) and amount <= GREATEST_INTEGER:
                self.progress(replace(terms, amount=amount), user_id, specifier, 1)

    def earner(self, purchase: Purchase, terms: Terms) -> int | None:
        """Whom a purchase could pay; None if it does not qualify."""
        seller = self.seller(purchase)
        if not purchase.is_valid or purchase.slot < terms.starting_block or purchase.amount < 1_000_000:
            return None
        if seller == purchase.buyer_user_id:
            return None
        if terms.id == "b":
            return purchase.buyer_user_id
        person = self.model.person(seller)
        return seller if person and person.is_verified else None

    def seller(self, purchase: Purchase) -> int | None:
        """Who owns now what was bought."""
        versions: list[tuple[Track | Playlist, int]] = []
        if purchase.content_type == "track":
            tracks = (row for row in self.sources.tracks if row.track_id == purchase.content_id)
            versions = [(row, row.owner_id) for row in tracks if row.is_current]
        elif purchase.content_type in {"album", "playlist"}:
            playlists = (row for row in self.sources.playlists if row.playlist_id == purchase.content_id)
            versions = [(row, row.playlist_owner_id) for row in playlists if row.is_current]
        if not versions:
            return None
        return max(versions, key=lambda version: (version[0].blocknumber or 0, version[0].txhash))[1]


def order(purchase: Purchase) -> tuple[int, bytes, int]:
    """What comes first decides."""
    return (purchase.slot, purchase.signature.encode(), purchase.instruction_index)
