"""tt, tut, tp, weekly trending: the winners of a Friday, once a week, all or none."""

import math
from collections.abc import Callable

from tests.model.rows import TrendingResult, UserChallenge, UserCounters
from tests.model.rules import ChallengeError, Rule, Terms, completed

FRIDAY = 4  # date.weekday()
TYPES = {"tt": "TRACKS", "tut": "UNDERGROUND_TRACKS", "tp": "PLAYLISTS"}
VERSION = "pnagD"
TIME_RANGE = "week"
WINNERS = 10
TOP_TRACKS = 20
"""Tracks at the top of TRACKS, which are not underground."""
UNDERGROUND_BELOW = 1500
"""Followers, and users followed, from which an owner is not underground."""


class Trending(Rule):
    IDS = tuple(TYPES)
    HAS_REAL_CLOCK = True

    def reconcile(self, terms: Terms) -> None:
        week = terms.as_of.date()
        kind = TYPES[terms.id]
        if week.weekday() != FRIDAY:
            return
        results = self.model.trending_results
        if any((row.type, row.version, row.week) == (kind, VERSION, week) for row in results.values()):
            return

        winners = {
            "tt": self.trending_tracks,
            "tut": self.underground_tracks,
            "tp": self.trending_playlists,
        }
        rows = [
            (rank, item_id, owner_id, f"{week:%Y-%m-%d}:{rank}")
            for rank, (item_id, owner_id) in enumerate(winners[terms.id]()[:WINNERS], start=1)
        ]
        for _, _, _, specifier in rows:
            if (terms.id, specifier) in self.model.user_challenges:
                raise ChallengeError
        for rank, item_id, owner_id, specifier in rows:
            results[rank, kind, VERSION, week] = TrendingResult(owner_id, str(item_id), rank, kind, VERSION, week)
            amounts = (100, 10) if terms.id == "tp" else (1000, 100)
            row = UserChallenge(
                challenge_id=terms.id,
                specifier=specifier,
                user_id=owner_id,
                is_complete=False,
                current_step_count=1,
                completed_blocknumber=None,
                amount=amounts[0] if rank <= 5 else amounts[1],
                created_at=terms.now,
                completed_at=None,
            )
            self.model.user_challenges[terms.id, specifier] = completed(row, terms.now, terms.block)

    def ranked(self, scores: dict[int, float], owner_of: Callable[[int], int | None]) -> list[tuple[int, int]]:
        """The eligible items with their owners, the best first: by score, then id, both descending."""
        scores = {item: score for item, score in scores.items() if 0 < score < math.inf}
        order = sorted(scores, key=lambda item: (scores[item], item), reverse=True)
        owners = [(item, owner_of(item)) for item in order]
        return [(item, owner) for item, owner in owners if owner is not None and self.model.person(owner)]

    def track_scores(self, kind: str) -> dict[int, float]:
        return {
            row.track_id: row.score
            for row in self.sources.track_trending_scores
            if (row.type, row.version, row.time_range) == (kind, VERSION, TIME_RANGE)
        }

    def owner_of_track(self, track_id: int) -> int | None:
        versions = [
            row
            for row in self.sources.tracks
            if row.track_id == track_id
            and row.is_current
            and not row.is_delete
            and not row.is_unlisted
            and row.is_available
        ]
        decisive = max(versions, key=lambda row: (row.blocknumber or 0, row.txhash), default=None)
        return decisive.owner_id if decisive else None

    def trending_tracks(self) -> list[tuple[int, int]]:
        return self.ranked(self.track_scores("TRACKS"), self.owner_of_track)

    def underground_tracks(self) -> list[tuple[int, int]]:
        trending = self.trending_tracks()
        if not trending:
            return []
        top = {track_id for track_id, _ in trending[:TOP_TRACKS]}
        scores = self.track_scores("UNDERGROUND_TRACKS")
        return [
            (track_id, owner)
            for track_id, owner in self.ranked(scores, self.owner_of_track)
            if track_id not in top and self.is_underground(owner)
        ]

    def is_underground(self, user_id: int) -> bool:
        counters = self.sources.aggregate_user.get(user_id) or UserCounters(user_id)
        followers, following = counters.follower_count or 0, counters.following_count or 0
        return followers < UNDERGROUND_BELOW and following < UNDERGROUND_BELOW

    def owner_of_playlist(self, playlist_id: int) -> int | None:
        versions = [
            row
            for row in self.sources.playlists
            if row.playlist_id == playlist_id and row.is_current and not row.is_delete and not row.is_private
        ]
        decisive = max(versions, key=lambda row: (row.blocknumber or 0, row.txhash), default=None)
        return decisive.playlist_owner_id if decisive else None

    def trending_playlists(self) -> list[tuple[int, int]]:
        scores = {
            row.playlist_id: row.score
            for row in self.sources.playlist_trending_scores
            if (row.type, row.version, row.time_range) == ("PLAYLISTS", VERSION, TIME_RANGE)
        }
        return self.ranked(scores, self.owner_of_playlist)
