"""tt, tut, tp, weekly trending: on Fridays the top ten of the week's scores, written once and all together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from audius_challenges.database import AnyPlan
from audius_challenges.engine.explanation import Answer, Asked, Said, prospects_of
from audius_challenges.engine.processor import Work
from audius_challenges.engine.scores import IS_A_SCORE, TRENDING_TRACKS, VERSION, is_of_the_week, scored_tracks
from audius_challenges.engine.state import Phase
from audius_challenges.engine.users import is_active
from audius_challenges.engine.writing import WRITES, prospects, writing
from audius_challenges.errors import UNIQUE_VIOLATION, ChallengeError, describe, sqlstate_of
from audius_challenges.sources import Reads, columns_read, merged

FRIDAY = 5

_WEEK = AnyPlan("""
    SELECT
        (:as_of::timestamptz AT TIME ZONE 'UTC')::date::text AS week,
        extract(ISODOW FROM :as_of::timestamptz AT TIME ZONE 'UTC')::integer AS weekday,
        to_char(:as_of::timestamptz AT TIME ZONE 'UTC', 'FMDay') AS day,
        (:as_of::timestamptz AT TIME ZONE 'UTC')::date < (clock_timestamp() AT TIME ZONE 'UTC')::date AS is_past
""")

_IS_PAID = f"""
    SELECT count(*) > 0 AS is_paid
    FROM discovery.trending_results
    WHERE trending_results.type::text = :ranked_type::text
        AND trending_results.version::text = '{VERSION}'
        AND trending_results.week = :week::date
"""


# Without the exclusion the underground winners are just the trending ones; without trending tracks it would be empty.
_UNDERGROUND = f"""
        SELECT underground.*
        FROM ({scored_tracks("UNDERGROUND_TRACKS")}
            AND NOT EXISTS (
                SELECT FROM discovery.aggregate_user
                WHERE aggregate_user.user_id = track.owner_id
                    AND (aggregate_user.follower_count >= 1500 OR aggregate_user.following_count >= 1500)
            )
        ) AS underground
        WHERE underground.id NOT IN (SELECT trending.id FROM ({TRENDING_TRACKS} LIMIT 20) AS trending)
            AND EXISTS ({TRENDING_TRACKS} LIMIT 1)
        ORDER BY
            underground.score DESC,
            underground.id DESC
"""

_PLAYLISTS = f"""
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
            ORDER BY
                coalesce(playlists.blocknumber, 0) DESC,
                playlists.txhash::text COLLATE "C" DESC
            LIMIT 1
        ) AS playlist
        WHERE {is_of_the_week("PLAYLISTS")}
            AND {IS_A_SCORE}
            AND {is_active("playlist.playlist_owner_id")}
        ORDER BY
            scores.score DESC,
            scores.playlist_id DESC
"""


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
    without_past: str | None = None

    @cached_property
    def reads(self) -> Reads:
        """Everything that a Friday needs."""
        return merged([WRITES, columns_read(_IS_PAID, self._wanted)])

    @cached_property
    def statements(self) -> Mapping[str, str]:
        """A Friday's."""
        return {"week": _WEEK, "paid": _IS_PAID, "write": writing(self._wanted, only_new=True)}

    def run(self, work: Work) -> None:
        """On a Friday that has no results yet, write the week's winners."""
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint
        today = work.db.row(_WEEK, as_of=work.as_of)
        if today["weekday"] != FRIDAY:
            return
        if work.db.value(_IS_PAID, ranked_type=self.ranked_type, week=today["week"]):
            return
        try:
            work.write(self._wanted, only_new=True, ranked_type=self.ranked_type, week=today["week"])
        except work.db.plpy.SPIError as error:
            if sqlstate_of(error) != UNIQUE_VIOLATION:
                raise
            raise self._has_rows_already(today["week"], describe(error)) from None
        work.users_examined += work.written.inserted
        if today["is_past"] and work.written.inserted:
            work.db.plpy.notice(
                f'challenge "{self.id}": the week of {today["week"]} is in the past'
                " and was paid from the current scores"
            )

    def explain(self, asked: Asked) -> Answer:
        """The ranks of the moment; and on a Friday without results yet, the user's rows that the next run writes.

        :raises ChallengeError: if rows of the week are there already, as for a run
        """
        db, answer = asked.db, Answer(target=1)
        today = db.row(_WEEK, as_of=asked.as_of)
        is_friday = today["weekday"] == FRIDAY
        is_paid = db.value(_IS_PAID, ranked_type=self.ranked_type, week=today["week"])
        found = db.rows(
            prospects(self._wanted_and("")), challenge_id=self.id, nothing_written=False, week=today["week"]
        )
        own = prospects_of(found, asked.user_id)
        ranks = [one.specifier.split(":")[1] for one in own]
        answer.said = [
            Said(
                "rank",
                "1 to 10 of the week",
                f"{', '.join(ranks)}, by the scores of the moment" if ranks else "none of these",
                bool(ranks),
            ),
            Said("day", "Friday, in UTC", today["day"], is_friday),
            Said(
                "the week's results",
                "not there yet",
                "there already" if is_paid else "not there yet",
                not is_paid,
            ),
        ]
        if ranks and (is_paid or not is_friday):
            answer.waits_for = "a week's ranks are decided on a Friday, in UTC, and once"
        if is_friday and not is_paid:
            if any(row["is_there"] for row in found):
                raise self._has_rows_already(today["week"])
            answer.prospects = own
        return answer

    def _has_rows_already(self, week: str, error: str = "") -> ChallengeError:
        return ChallengeError(
            f'user_challenges already has rows of challenge "{self.id}" for the week of {week}',
            sqlstate=UNIQUE_VIOLATION,
            detail=f"Nothing was written: all rows of a week are written together or not at all. {error}".rstrip(),
            hint="Find out who wrote them and whether they were paid (challenge_disbursements). Either delete them,"
            f" or keep them and insert the week's winners into trending_results (type {self.ranked_type}).",
        )

    @cached_property
    def _wanted(self) -> str:
        return self._wanted_and(f"""
        results AS (
            INSERT INTO discovery.trending_results (user_id, id, rank, type, version, week)
            SELECT
                winners.owner_id,
                winners.id::text,
                winners.rank,
                :ranked_type::text,
                '{VERSION}',
                :week::date
            FROM winners
        ),""")

    def _wanted_and(self, results: str) -> str:
        return f"""
        winners AS MATERIALIZED (
            SELECT
                row_number() OVER (ORDER BY scored.score DESC, scored.id DESC)::integer AS rank,
                scored.id,
                scored.owner_id
            FROM ({self.scored} LIMIT 10) AS scored
        ),
        moment AS MATERIALIZED (SELECT clock_timestamp() AS now),{results}
        wanted AS (
            SELECT
                winners.owner_id AS user_id,
                to_char(:week::date, 'YYYY-MM-DD') || ':' || winners.rank::text AS specifier,
                1 AS current_step_count,
                TRUE AS is_complete,
                CASE WHEN winners.rank <= 5 THEN {self.amounts[0]} ELSE {self.amounts[1]} END AS amount,
                moment.now AS created_at,
                moment.now AT TIME ZONE 'UTC' AS completed_at
            FROM winners
            CROSS JOIN moment
        )
        """

    def resume(self, work: Work) -> None:
        """Nothing was missed but Fridays."""

    def pause(self, work: Work) -> None:
        """A Friday without the challenge being active passes by."""

    def start_from_now(self, work: Work) -> int:
        """A week is written once in any case."""
        work.state.phase = Phase.WATCHING
        work.state.catalog_seen = work.challenge.fingerprint
        return 0

    def pass_over(self, work: Work) -> int | None:  # noqa: ARG002 - a week is written once in any case
        """No single deeds are rewarded."""
        return None


TRENDING = (
    Trending(
        id="tt",
        description="trending tracks",
        ranked_type="TRACKS",
        scored=TRENDING_TRACKS,
        amounts=(1000, 100),
    ),
    Trending(
        id="tut",
        description="underground trending tracks",
        ranked_type="UNDERGROUND_TRACKS",
        scored=_UNDERGROUND,
        amounts=(1000, 100),
    ),
    Trending(
        id="tp",
        description="trending playlists",
        ranked_type="PLAYLISTS",
        scored=_PLAYLISTS,
        amounts=(100, 10),
    ),
)
