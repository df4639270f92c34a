"""tt, tut, tp, weekly trending: on Fridays the top ten of the week's scores, written once and all together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audius_challenges.contract import ELIGIBLE_USERS, USER_CHALLENGES
from audius_challenges.errors import UNIQUE_VIOLATION, ChallengeError, describe, sqlstate_of
from audius_challenges.processor import Work
from audius_challenges.state import Phase

VERSION = "pnagD"
FRIDAY = 5

_WEEK = """
    SELECT
        (:as_of AT TIME ZONE 'UTC')::date::text AS week,
        extract(isodow FROM :as_of AT TIME ZONE 'UTC')::integer AS weekday,
        (:as_of AT TIME ZONE 'UTC')::date < (clock_timestamp() AT TIME ZONE 'UTC')::date AS is_past
"""

_IS_PAID = """
    SELECT EXISTS (
        SELECT FROM discovery.trending_results
        WHERE type::text = :ranked_type
            AND version::text = :name
            AND week = :week
    )
"""

# Of several current versions one that qualifies is enough; of several that do, the highest block's owner is paid.
_SCORED_TRACKS = """
    SELECT
        scores.track_id AS id,
        scores.score,
        track.owner_id
    FROM discovery.track_trending_scores AS scores
    CROSS JOIN LATERAL (
        SELECT tracks.owner_id
        FROM discovery.tracks
        WHERE tracks.track_id = scores.track_id
            AND tracks.is_current
            AND NOT tracks.is_delete
            AND NOT tracks.is_unlisted
            AND tracks.is_available
        ORDER BY coalesce(tracks.blocknumber, 0) DESC, tracks.txhash DESC
        LIMIT 1
    ) AS track
    WHERE scores.type::text = {score_type}
        AND scores.version::text = :name
        AND scores.time_range::text = 'week'
        AND {owner_counts}
    ORDER BY scores.score DESC, scores.track_id DESC
"""

_SCORED_PLAYLISTS = """
    SELECT
        scores.playlist_id AS id,
        scores.score,
        playlist.playlist_owner_id AS owner_id
    FROM discovery.playlist_trending_scores AS scores
    CROSS JOIN LATERAL (
        SELECT playlists.playlist_owner_id
        FROM discovery.playlists
        WHERE playlists.playlist_id = scores.playlist_id
            AND playlists.is_current
            AND NOT playlists.is_delete
            AND NOT playlists.is_private
        ORDER BY coalesce(playlists.blocknumber, 0) DESC, playlists.txhash DESC
        LIMIT 1
    ) AS playlist
    WHERE scores.type::text = 'PLAYLISTS'
        AND scores.version::text = :name
        AND scores.time_range::text = 'week'
        AND {owner_counts}
    ORDER BY scores.score DESC, scores.playlist_id DESC
"""

_OWNER_COUNTS = """coalesce((
            SELECT NOT users.is_deactivated
            FROM discovery.users
            WHERE users.user_id = {owner}
                AND users.is_current
            ORDER BY coalesce(users.blocknumber, 0) DESC, users.txhash DESC
            LIMIT 1
        ), false)"""

_OWNER_IS_UNDERGROUND = """NOT EXISTS (
            SELECT FROM discovery.aggregate_user
            WHERE aggregate_user.user_id = track.owner_id
                AND (aggregate_user.follower_count >= 1500 OR aggregate_user.following_count >= 1500)
        )"""

_TRACK_COUNTS = _OWNER_COUNTS.format(owner="track.owner_id")

_TRACKS = _SCORED_TRACKS.format(score_type="'TRACKS'", owner_counts=_TRACK_COUNTS)

# Without the exclusion the underground winners are just the trending ones; without trending tracks it would be empty.
_UNDERGROUND = f"""
    SELECT underground.*
    FROM ({
    _SCORED_TRACKS.format(
        score_type="'UNDERGROUND_TRACKS'", owner_counts=f"{_TRACK_COUNTS} AND {_OWNER_IS_UNDERGROUND}"
    )
}) AS underground
    WHERE underground.id NOT IN (SELECT trending.id FROM ({_TRACKS} LIMIT 20) AS trending)
        AND EXISTS ({_TRACKS} LIMIT 1)
    ORDER BY underground.score DESC, underground.id DESC
"""

_PLAYLISTS = _SCORED_PLAYLISTS.format(owner_counts=_OWNER_COUNTS.format(owner="playlist.playlist_owner_id"))

_TRACK_COLUMNS = {
    "track_trending_scores": "track_id type version time_range score",
    "tracks": "track_id owner_id is_current is_delete is_unlisted is_available blocknumber txhash",
}
_PLAYLIST_COLUMNS = {
    "playlist_trending_scores": "playlist_id type version time_range score",
    "playlists": "playlist_id playlist_owner_id is_current is_delete is_private blocknumber txhash",
}


@dataclass(frozen=True, kw_only=True)
class Trending:
    """One of the weekly rankings.

    :ivar ranked_type: the type in `trending_results`
    :ivar scored: SQL of the eligible entries, best first: id, score, owner_id
    :ivar amounts: what ranks 1 to 5 and 6 to 10 earn, whatever the catalog says
    """

    id: str
    description: str
    ranked_type: str
    scored: str
    amounts: tuple[int, int]
    columns: Mapping[str, str]

    @property
    def reads(self) -> Mapping[str, str]:
        """Everything that a Friday needs."""
        return {
            **USER_CHALLENGES,
            **ELIGIBLE_USERS,
            **self.columns,
            "trending_results": "user_id id rank type version week",
        }

    def run(self, work: Work) -> None:
        """On a Friday that has no results yet, write the week's winners."""
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint
        today = work.db.row(_WEEK, as_of=work.as_of)
        if today["weekday"] != FRIDAY:
            return
        if work.db.value(_IS_PAID, ranked_type=self.ranked_type, name=VERSION, week=today["week"]):
            return
        try:
            self._write_winners(work, today["week"])
        except work.db.plpy.SPIError as error:
            if sqlstate_of(error) != UNIQUE_VIOLATION:
                raise
            raise ChallengeError(
                f'somebody else has written rows of challenge "{self.id}" for the week of {today["week"]}',
                sqlstate=UNIQUE_VIOLATION,
                detail=f"Nothing was written: a week's rows land together or not at all. {describe(error)}",
                hint="Find out who wrote them and whether they were paid (challenge_disbursements). Either delete them,"
                f" or keep them and insert the week's winners into trending_results (type {self.ranked_type}).",
            ) from None
        work.users_examined += work.written.inserted
        if today["is_past"] and work.written.inserted:
            work.db.plpy.notice(
                f'challenge "{self.id}": the week of {today["week"]} is past, paid from the scores as they are now'
            )

    def _write_winners(self, work: Work, week: str) -> None:
        work.write(
            f"""
            winners AS MATERIALIZED (
                SELECT
                    row_number() OVER (ORDER BY scored.score DESC, scored.id DESC)::integer AS rank,
                    scored.id,
                    scored.owner_id
                FROM ({self.scored} LIMIT 10) AS scored
            ),
            results AS (
                INSERT INTO discovery.trending_results (user_id, id, rank, type, version, week)
                SELECT
                    winners.owner_id,
                    winners.id::text,
                    winners.rank,
                    :ranked_type,
                    :name,
                    :week
                FROM winners
            ),
            wanted AS (
                SELECT
                    winners.owner_id AS user_id,
                    to_char(:week, 'YYYY-MM-DD') || ':' || winners.rank::text AS specifier,
                    1 AS current_step_count,
                    true AS is_complete,
                    (:amounts)[CASE WHEN winners.rank <= 5 THEN 1 ELSE 2 END] AS amount,
                    :as_of AS created_at,
                    :as_of AT TIME ZONE 'UTC' AS completed_at
                FROM winners
            )
            """,
            only_new=True,
            ranked_type=self.ranked_type,
            name=VERSION,
            week=week,
            amounts=list(self.amounts),
            as_of=work.as_of,
        )

    def pause(self, work: Work) -> None:
        """A Friday without the challenge being active passes by."""

    def start_from_now(self, work: Work) -> None:
        """A week is written once in any case."""
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint


TRENDING = (
    Trending(
        id="tt",
        description="trending tracks",
        ranked_type="TRACKS",
        scored=_TRACKS,
        amounts=(1000, 100),
        columns=_TRACK_COLUMNS,
    ),
    Trending(
        id="tut",
        description="underground trending tracks",
        ranked_type="UNDERGROUND_TRACKS",
        scored=_UNDERGROUND,
        amounts=(1000, 100),
        columns={**_TRACK_COLUMNS, "aggregate_user": "user_id follower_count following_count"},
    ),
    Trending(
        id="tp",
        description="trending playlists",
        ranked_type="PLAYLISTS",
        scored=_PLAYLISTS,
        amounts=(100, 10),
        columns=_PLAYLIST_COLUMNS,
    ),
)
