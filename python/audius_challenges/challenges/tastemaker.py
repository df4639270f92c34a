"""t, tastemaker: who reposted or saved a track first, once it trends. Each track is decided once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from audius_challenges.engine.clock import has_come
from audius_challenges.engine.deeds import is_known, is_set_aside
from audius_challenges.engine.explanation import Asked, at_least_one
from audius_challenges.engine.processor import Work
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.scores import IS_A_SCORE, TRENDING_TRACKS, is_of_the_week
from audius_challenges.engine.users import is_active, is_one_of_the_users
from audius_challenges.sources import Reads, columns_read, merged

_UNDECIDED = f"""
    SELECT
        trending.id,
        trending.owner_id
    FROM ({TRENDING_TRACKS} LIMIT 10) AS trending
    WHERE NOT EXISTS (
        SELECT FROM audius_challenges.tastemaker_decision AS decision
        WHERE decision.track_id = trending.id
    )
"""


# Of a user of whom there are several versions, the earliest counts (rule 8).
def _earliest(table: str, kind: str) -> str:
    return f"""(
                    SELECT fan.user_id
                    FROM (
                        SELECT
                            {table}.user_id,
                            min({table}.created_at) AS created_at
                        FROM discovery.{table}
                        WHERE {table}.{kind}_item_id = undecided.id
                            AND {table}.{kind}_type = 'track'
                            AND {table}.is_current
                            AND NOT {table}.is_delete
                            AND {table}.user_id <> undecided.owner_id
                            AND {has_come(f"{table}.created_at")}
                        GROUP BY {table}.user_id
                    ) AS fan
                    WHERE {is_active("fan.user_id")}
                    ORDER BY
                        fan.created_at ASC,
                        fan.user_id ASC
                    LIMIT 10
                )"""


def _has_rewards(table: str) -> str:
    """SQL of whether anybody was rewarded for an undecided track: it reads all that the challenge has there."""
    return f"""to_hex(undecided.id) IN (
                    SELECT split_part({table}.specifier::text, ':t:', 2)
                    FROM discovery.{table}
                    WHERE {table}.challenge_id::text = 't'
                )"""


def _decisions(undecided: str) -> str:
    """SQL of what is decided of tracks: id and owner_id."""
    return f"""
    SELECT
        decision.track_id,
        decision.winners,
        decision.winners = '{{}}' AS is_done,
        :as_of::timestamptz AS decided_at
    FROM (
        SELECT
            undecided.id AS track_id,
            CASE
                WHEN {_has_rewards("user_challenges")}
                    OR {_has_rewards("challenge_disbursements")}
                    OR {_has_rewards("sol_reward_disbursements")}
                    THEN '{{}}'
                ELSE ARRAY(
                    {_earliest("reposts", "repost")}
                    UNION
                    {_earliest("saves", "save")}
                )
            END::bigint[] AS winners
        FROM {undecided} AS undecided (id, owner_id)
    ) AS decision
"""


_DECIDE = f"""
    INSERT INTO audius_challenges.tastemaker_decision (track_id, winners, is_done, decided_at)
    {_decisions("unnest(:tracks::bigint[], :owners::bigint[])")}
"""

_MADE = "audius_challenges.tastemaker_decision"

# Those that there are, and those that the next run makes.
_TO_COME = f"""(
        SELECT
            made.track_id,
            made.winners,
            made.is_done,
            made.decided_at
        FROM {_MADE} AS made
        UNION ALL
        {_decisions(f"({_UNDECIDED})")}
    )"""


def _winners(decisions: str = _MADE) -> str:
    return f"""{decisions} AS decision
    CROSS JOIN LATERAL unnest(decision.winners) AS winner (user_id)"""


_DONE = f"""
    UPDATE audius_challenges.tastemaker_decision AS decision
    SET is_done = TRUE
    WHERE NOT decision.is_done
        AND NOT EXISTS (
            SELECT FROM unnest(decision.winners) AS winner (user_id)
            WHERE NOT {is_known(("t",), "ARRAY[to_hex(winner.user_id) || ':t:' || to_hex(decision.track_id)]")}
        )
"""

# Those that would be among the ten if it were not for their owner's account, or for being hidden, are passed over, too.
_PASS_OVER = f"""
    WITH tenth AS MATERIALIZED (
        {TRENDING_TRACKS}
        LIMIT 1
        OFFSET 9
    ),
    passed AS (
        INSERT INTO audius_challenges.tastemaker_decision (track_id, winners, is_done, decided_at)
        SELECT
            scores.track_id,
            '{{}}',
            TRUE,
            :as_of::timestamptz
        FROM discovery.track_trending_scores AS scores
        WHERE {is_of_the_week("TRACKS")}
            AND {IS_A_SCORE}
            AND NOT EXISTS (
                SELECT FROM tenth
                WHERE (scores.score, scores.track_id) < (tenth.score, tenth.id)
            )
        ON CONFLICT (track_id) DO NOTHING
        RETURNING 1
    ),
    given_up AS (
        UPDATE audius_challenges.tastemaker_decision AS decision
        SET
            winners = '{{}}',
            is_done = TRUE
        WHERE NOT decision.is_done
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM passed) + (SELECT count(*) FROM given_up) AS passed_over
"""


@dataclass(frozen=True, kw_only=True)
class Tastemaker(Rule):
    """A rule over the winners of decisions, which are made before it is applied."""

    @cached_property
    def reads(self) -> Reads:
        """What decisions go by, too."""
        return merged([super().reads, columns_read(_UNDECIDED, _DECIDE, _PASS_OVER)])

    @cached_property
    def statements(self) -> Mapping[str, str]:
        """Those of decisions, too."""
        return {
            **super().statements,
            "undecided": _UNDECIDED,
            "decide": _DECIDE,
            "done": _DONE,
            "pass tracks over": _PASS_OVER,
        }

    @cached_property
    def without_past(self) -> str:
        """The tracks that trend are passed over."""
        return f"SELECT * FROM audius_challenges.start_from_now('{{{self.id}}}');"

    def run(self, work: Work) -> None:
        """Decide the tracks that are among the top ten for the first time, and write the winners who are not yet."""
        undecided = work.db.rows(_UNDECIDED)
        if undecided:
            work.db.rows(
                _DECIDE,
                tracks=[track["id"] for track in undecided],
                owners=[track["owner_id"] for track in undecided],
                as_of=work.as_of,
            )
        super().run(work)
        work.db.rows(_DONE)

    def as_next_run_finds_it(self, asked: Asked) -> Rule:
        """The rule over the decisions of the next run, too."""
        return replace(super().as_next_run_finds_it(asked), found=_found(_TO_COME))

    def pass_over(self, work: Work) -> int:
        """The tracks that trend are decided, without winners; so are those whose winners have not all been written."""
        passed: int = work.db.value(_PASS_OVER, as_of=work.as_of)
        if not work.db.value(f"SELECT EXISTS ({TRENDING_TRACKS})"):
            work.db.plpy.notice(
                f'challenge "{self.id}": no track trends now, so those that come are not passed over',
                hint="If scores are missing only for a while, call it again once they are back, before the next tick.",
            )
        return passed


def _found(decisions: str = _MADE) -> str:
    return f"""
        SELECT
            winner.user_id,
            decision.track_id,
            1 AS steps
        FROM {_winners(decisions)}
        WHERE NOT decision.is_done
            AND {is_one_of_the_users("winner.user_id")}
            AND {is_active("winner.user_id")}
    """


TASTEMAKER = Tastemaker(
    id="t",
    description="tastemaker",
    is_deed=True,
    is_of_earner=False,
    specifier="to_hex(found.user_id) || ':t:' || to_hex(found.track_id)",
    due_users=f"""
    SELECT winner.user_id
    FROM {_winners()}
    WHERE NOT decision.is_done
        AND NOT {is_set_aside("t", "winner.user_id", "to_hex(winner.user_id) || ':t:' || to_hex(decision.track_id)")}
    """,
    found=_found(),
    facts=f"""
        SELECT
            count(*) AS number,
            min(decision.decided_at) AT TIME ZONE 'UTC' AS since
        FROM {_winners(_TO_COME)}
        WHERE winner.user_id = :user_id::bigint
    """,
    conditions=(
        at_least_one(
            "tracks that the user was early with",
            "among the first 10 to repost or save one, when it first was in the week's top 10",
            "fact.number",
            "fact.since",
        ),
    ),
)
