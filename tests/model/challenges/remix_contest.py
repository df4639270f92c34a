"""w, remix contest winner: whom a verified host names in his contest, five of a contest, five of a host in a week."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.model.rows import Event, Track
from tests.model.rules import DeedsRule, Terms, specifier_of

MOST = 5
WEEK = timedelta(days=7)
SKEW = timedelta(minutes=5)


class RemixContest(DeedsRule):
    IDS = ("w",)

    def reconcile(self, terms: Terms) -> None:
        latest = terms.as_of.replace(tzinfo=None) + SKEW
        for contest in sorted(self.contests(), key=lambda row: (row.updated_at, row.event_id)):
            host = self.model.person(contest.user_id)
            if (
                host is not None
                and host.is_verified
                and not contest.is_deleted
                and (contest.blocknumber or 0) >= terms.starting_block
                and contest.updated_at <= latest
            ):
                self.reward(terms, contest)

    def reward(self, terms: Terms, contest: Event) -> None:
        at = contest.updated_at.replace(tzinfo=UTC)
        for track_id in winners(contest):
            track = self.current(track_id)
            if track is None or track.owner_id == contest.user_id or not self.model.person(track.owner_id):
                continue
            specifier = deed_of(contest, track.owner_id)
            if not self.is_known(specifier) and self.has_room(contest, at):
                self.progress(terms, track.owner_id, specifier, 1)
                row = self.model.user_challenges[terms.id, specifier]
                self.model.user_challenges[terms.id, specifier] = replace(row, created_at=at)

    def has_room(self, contest: Event, at: datetime) -> bool:
        """Whether one more reward leaves five of the contest, and five in each week of the host that ends in one."""
        if len(self.rewards_of(contest)) >= MOST:
            return False
        times = [at]
        for other in self.sources.events:
            if other.user_id == contest.user_id:
                times += self.rewards_of(other)
        return all(sum(end - WEEK <= time <= end for time in times) <= MOST for end in times if end >= at)

    def rewards_of(self, contest: Event) -> list[datetime]:
        """When those were rewarded whom the contest named."""
        return [
            row.created_at
            for row in self.model.user_challenges.values()
            if row.challenge_id == "w" and row.specifier.split(":")[0] == f"{contest.event_id:x}"
        ]

    def is_known(self, specifier: str) -> bool:
        return (
            ("w", specifier) in self.model.user_challenges
            or ("w", specifier) in self.model.passed_over
            or self.sources.challenge_disbursements.get("w", specifier) is not None
        )

    def contests(self) -> list[Event]:
        return [row for row in self.sources.events if row.event_type == "remix_contest"]

    def current(self, track_id: int) -> Track | None:
        """The row that decides about a track."""
        versions = [
            row for row in self.sources.tracks if row.track_id == track_id and row.is_current and not row.is_delete
        ]
        return max(versions, key=lambda row: (row.blocknumber or 0, row.txhash), default=None)

    def every_deed(self) -> Iterator[str]:
        for contest in self.contests():
            for track in self.sources.tracks:
                if track.track_id in winners(contest) and track.owner_id != contest.user_id:
                    yield deed_of(contest, track.owner_id)


def deed_of(contest: Event, user_id: int) -> str:
    """The specifier of a contest and who has won it."""
    return f"{contest.event_id:x}:{specifier_of(user_id)}"


def winners(contest: Event) -> list[int]:
    """The ids of tracks among the elements."""
    found = json.loads(contest.event_data or "null")
    elements = found.get("winners") if isinstance(found, dict) else None
    return [number for element in elements or [] if (number := number_of(element)) is not None]


def number_of(element: object) -> int | None:
    """An element as the id of a track."""
    if isinstance(element, str) and 1 <= len(element) <= 9 and set(element) <= set("0123456789"):
        return int(element)
    if isinstance(element, int | float) and not isinstance(element, bool) and element == int(element) >= 1:
        return int(element)
    return None
