"""r, rv and rd, referrals: who brings a user, and the user who was brought.

A user B comes with rows of `user_events`; the deciding one names his referrer A. r pays A, up to a cap, and rv pays A
instead if he is verified, up to another. rd pays B.

The caps of r and rv are A's, so A is the user who is examined, with all who name him. No index may lead there from A,
so no slice of the sweep looks for them. Changed rows lead to A when they are B's, and, if they are A's own, where there
is an index or A is verified (these are few). What remains is found by one pass over `user_events` a round of the sweep.
"""

from __future__ import annotations

from audius_challenges.engine.deeds import has_no_row, is_known, pair_of
from audius_challenges.engine.explanation import VERIFIED, Condition, at_least_one
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_active, is_one_of_the_users
from audius_challenges.sources import EVENTS_BY_REFERRER, NEWCOMERS, Source

_PAYS_REFERRER = ("r", "rv")


# Pairs in rows of a user who was brought: all his current rows, since a changed one may have ceased to decide.
_REFERRERS_OF_CHANGED = f"""
                SELECT named.referrer AS user_id
                FROM discovery.user_events AS named
                WHERE named.user_id = changed.user_id
                    AND named.is_current
                    AND named.referrer <> named.user_id
                    AND NOT {is_known(_PAYS_REFERRER, f"ARRAY[{pair_of('named.referrer', 'named.user_id')}]")}"""

REFERRERS = Source(
    "user_events",
    user="affected.user_id",
    join=f"""
            CROSS JOIN LATERAL (
                {_REFERRERS_OF_CHANGED}
                OFFSET 0
            ) AS affected""",
)
REFERRERS_AND_REFERRED = Source(
    "users",
    user="affected.user_id",
    join=f"""
            CROSS JOIN LATERAL (
                SELECT either.user_id
                FROM (
                    {_REFERRERS_OF_CHANGED}
                    UNION ALL
                    SELECT changed.user_id
                    WHERE changed.is_verified
                ) AS either
                OFFSET 0
            ) AS affected""",
)
ANY_REFERRER = Source("users", user="changed.user_id", index=EVENTS_BY_REFERRER)

# The pairs that nobody was paid for, whoever counts: few, but those that a cap refuses.
OPEN_REFERRERS = f"""
    SELECT DISTINCT user_events.referrer AS user_id
    FROM discovery.user_events
    WHERE user_events.is_current
        AND user_events.referrer <> user_events.user_id
        AND coalesce(user_events.blocknumber, 0) >= :starting_block::bigint
        AND NOT EXISTS (
            SELECT FROM discovery.user_challenges AS paid
            WHERE paid.challenge_id::text = ANY('{{{",".join(_PAYS_REFERRER)}}}'::text[])
                AND paid.specifier::text = {pair_of("user_events.referrer", "user_events.user_id")}
        )
        AND NOT EXISTS (
            SELECT FROM audius_challenges.passed_over AS passed
            WHERE passed.challenge_id = ANY('{{{",".join(_PAYS_REFERRER)}}}'::text[])
                AND passed.specifier = {pair_of("user_events.referrer", "user_events.user_id")}
        )
"""

# IS TRUE keeps the list of users a hashed one: as a join it could be walked through for each row. And where there is no
# candidate, nothing is read at all.
_DISBURSED = """
                SELECT paid.specifier
                FROM (
                    SELECT challenge_disbursements.specifier::text AS specifier
                    FROM discovery.challenge_disbursements
                    WHERE challenge_disbursements.challenge_id::text = :challenge_id::text
                    UNION ALL
                    SELECT sol_reward_disbursements.specifier::text
                    FROM discovery.sol_reward_disbursements
                    WHERE sol_reward_disbursements.challenge_id::text = :challenge_id::text
                ) AS paid
                WHERE EXISTS (SELECT FROM candidate)
                    AND (
                        split_part(paid.specifier, ':', 1) = ANY(SELECT to_hex(candidate.user_id) FROM candidate)
                    ) IS TRUE
"""


_DECIDING = """(
                SELECT
                    user_events.id,
                    user_events.referrer,
                    coalesce(user_events.blocknumber, 0) AS blocknumber
                FROM discovery.user_events
                WHERE user_events.user_id = pair.referred
                    AND user_events.is_current
                ORDER BY coalesce(user_events.blocknumber, 0) DESC, user_events.id DESC
                LIMIT 1
            ) AS deciding"""
_DECIDES = """coalesce(deciding.referrer = pair.user_id, FALSE)
                AND deciding.blocknumber >= :starting_block::bigint"""

_TAKEN = f"""taken AS (
            SELECT
                record.owner,
                count(*) AS rewards
            FROM (
                SELECT
                    to_hex(owner.user_id) AS owner,
                    user_challenges.specifier::text AS specifier
                FROM (SELECT DISTINCT candidate.user_id FROM candidate) AS owner
                INNER JOIN discovery.user_challenges
                    ON owner.user_id = user_challenges.user_id
                WHERE user_challenges.challenge_id::text = (SELECT :challenge_id::text)
                UNION
                SELECT
                    split_part(disbursed.specifier, ':', 1),
                    disbursed.specifier
                FROM ({_DISBURSED}) AS disbursed
            ) AS record
            GROUP BY record.owner
        )"""

_NOT_VERIFIED = Condition(
    what=VERIFIED.what,
    demanded="not verified: for a verified one there is rv",
    has=VERIFIED.has,
    holds="NOT eligible.is_verified",
)


# coalesce() around the referrer: of the equality alone the planner expects one row in two hundred, and joins what is
# written as if it were a handful.
def _referrals(challenge_id: str, description: str, *, account: Condition) -> Rule:
    paid_as = tuple(other for other in _PAYS_REFERRER if other != challenge_id)
    pair = pair_of("pair.user_id", "pair.referred")
    return Rule(
        id=challenge_id,
        description=description,
        by_user=REFERRERS_AND_REFERRED,
        changes=(REFERRERS, ANY_REFERRER),
        round_users=OPEN_REFERRERS,
        is_deed=True,
        is_of_earner=False,
        is_capped=True,
        takes_part=account.holds,
        specifier=pair_of("found.user_id", "found.referred"),
        paid_as=paid_as,
        found=f"""
        WITH named AS MATERIALIZED (
            SELECT DISTINCT
                user_events.referrer AS user_id,
                user_events.user_id AS referred
            FROM discovery.user_events
            WHERE {is_one_of_the_users("user_events.referrer")}
                AND user_events.is_current
                AND user_events.referrer <> user_events.user_id
                AND {has_no_row(challenge_id, pair_of("user_events.referrer", "user_events.user_id"))}
        ),
        pair AS MATERIALIZED (
            SELECT named.*
            FROM named
            WHERE (named.user_id = ANY(SELECT eligible.user_id FROM eligible)) IS TRUE
        ),
        candidate AS MATERIALIZED (
            SELECT
                pair.user_id,
                pair.referred,
                deciding.blocknumber,
                deciding.id
            FROM pair
            CROSS JOIN LATERAL {_DECIDING}
            WHERE NOT {is_known((challenge_id, *paid_as), f"ARRAY[{pair}]")}
                AND {_DECIDES}
                AND {is_active("pair.referred")}
        ),
        {_TAKEN}
        SELECT
            ranked.user_id,
            ranked.referred,
            1 AS steps
        FROM (
            SELECT
                candidate.user_id,
                candidate.referred,
                row_number() OVER (
                    PARTITION BY candidate.user_id
                    ORDER BY candidate.blocknumber ASC, candidate.id ASC
                ) AS place
            FROM candidate
        ) AS ranked
        LEFT JOIN taken
            ON to_hex(ranked.user_id) = taken.owner
        WHERE ranked.place <= :cap::bigint - coalesce(taken.rewards, 0)
    """,
        every_deed=f"""
        SELECT {pair_of("user_events.referrer", "user_events.user_id")} AS specifier
        FROM discovery.user_events
        WHERE user_events.referrer <> user_events.user_id
            AND NOT EXISTS (
                SELECT FROM discovery.user_challenges AS paid
                WHERE paid.challenge_id::text = ANY('{{{",".join(_PAYS_REFERRER)}}}'::text[])
                    AND paid.specifier::text = {pair_of("user_events.referrer", "user_events.user_id")}
            )
    """,
        own_deeds=f"""
        SELECT DISTINCT {pair_of("user_events.referrer", "user_events.user_id")} AS specifier
        FROM discovery.user_events
        WHERE user_events.referrer = :user_id::bigint
            AND user_events.referrer <> user_events.user_id
    """,
        facts=f"""
        WITH pair AS MATERIALIZED (
            SELECT DISTINCT
                user_events.referrer AS user_id,
                user_events.user_id AS referred
            FROM discovery.user_events
            WHERE user_events.referrer = :user_id::bigint
                AND user_events.is_current
                AND user_events.referrer <> user_events.user_id
        ),
        brought AS (
            SELECT
                {_DECIDES} AS decides,
                {is_active("pair.referred")} AS is_active
            FROM pair
            CROSS JOIN LATERAL {_DECIDING}
        ),
        candidate AS (SELECT :user_id::bigint AS user_id),
        {_TAKEN}
        SELECT
            count(*) AS number,
            count(*) FILTER (WHERE brought.decides) AS deciding,
            count(*) FILTER (WHERE brought.decides AND brought.is_active) AS active,
            coalesce((SELECT taken.rewards FROM taken), 0) AS taken
        FROM brought
    """,
        conditions=(
            account,
            Condition(
                what="users whom the user has brought",
                demanded="one whose latest event names him, from block {starting_block} on",
                has="fact.deciding || ' of ' || fact.number",
                holds="fact.deciding >= 1",
            ),
            at_least_one("of them, active", "one", "fact.active"),
            Condition(
                what="rewards so far",
                demanded="fewer than {cap}",
                has="fact.taken",
                holds="fact.taken < :cap::bigint",
            ),
        ),
    )


_LATEST = f"""
            SELECT DISTINCT ON (user_events.user_id)
                user_events.user_id,
                user_events.referrer,
                coalesce(user_events.blocknumber, 0) AS blocknumber
            FROM discovery.user_events
            WHERE {is_one_of_the_users("user_events.user_id")}
                AND user_events.is_current
            ORDER BY
                user_events.user_id ASC,
                coalesce(user_events.blocknumber, 0) DESC,
                user_events.id DESC
        """
_IS_ACTIVE_REFERRER = is_active("deciding.referrer")


def _paid_for_user(table: str) -> str:
    return f"""
        SELECT '{table}' AS record
        FROM {table} AS paid
        WHERE paid.challenge_id::text = 'rd'
            AND split_part(paid.specifier::text, ':', 1) = to_hex(:user_id::bigint)"""


# A user is paid for once, whoever brought him, so what was paid to him, or for him to anybody, is looked for by the
# first part of specifiers. No index does that under every collation: all of rd is read where there is a candidate.
REFERRED_USERS = Rule(
    id="rd",
    description="referred user",
    changes=(NEWCOMERS,),
    is_deed=True,
    specifier=pair_of("found.user_id", "found.referrer"),
    earlier="ARRAY[to_hex(found.user_id)]",
    found=f"""
        WITH deciding AS MATERIALIZED ({_LATEST}),
        pair AS MATERIALIZED (
            SELECT
                deciding.user_id,
                deciding.referrer
            FROM deciding
            WHERE deciding.referrer <> deciding.user_id
                AND deciding.blocknumber >= :starting_block::bigint
                AND {has_no_row("rd", pair_of("deciding.user_id", "deciding.referrer"))}
        ),
        candidate AS MATERIALIZED (
            SELECT
                pair.user_id,
                pair.referrer
            FROM pair
            INNER JOIN eligible
                ON pair.user_id = eligible.user_id
            WHERE NOT {is_known(("rd",), f"ARRAY[{pair_of('pair.user_id', 'pair.referrer')}, to_hex(pair.user_id)]")}
                AND {is_active("pair.referrer")}
        ),
        paid AS MATERIALIZED (
            SELECT split_part(user_challenges.specifier::text, ':', 1) AS user_hex
            FROM discovery.user_challenges
            WHERE user_challenges.challenge_id::text = (SELECT :challenge_id::text)
                AND EXISTS (SELECT FROM candidate)
                AND (
                    split_part(user_challenges.specifier::text, ':', 1)
                    = ANY(SELECT to_hex(candidate.user_id) FROM candidate)
                ) IS TRUE
            UNION
            SELECT split_part(disbursed.specifier, ':', 1)
            FROM ({_DISBURSED}) AS disbursed
        )
        SELECT
            candidate.user_id,
            candidate.referrer,
            1 AS steps
        FROM candidate
        WHERE (to_hex(candidate.user_id) = ANY(SELECT paid.user_hex FROM paid)) IS NOT TRUE
    """,
    every_deed="""
        SELECT to_hex(user_events.user_id) AS specifier
        FROM discovery.user_events
        WHERE user_events.referrer <> user_events.user_id
            AND NOT EXISTS (
                SELECT FROM discovery.user_challenges AS paid
                WHERE paid.challenge_id::text = 'rd'
                    AND split_part(paid.specifier::text, ':', 1) = to_hex(user_events.user_id)
            )
    """,
    own_deeds=f"""
        SELECT DISTINCT {pair_of("user_events.user_id", "user_events.referrer")} AS specifier
        FROM discovery.user_events
        WHERE user_events.user_id = :user_id::bigint
            AND user_events.referrer <> user_events.user_id
    """,
    paid_otherwise=" UNION ALL ".join(
        _paid_for_user(f"discovery.{table}")
        for table in ("user_challenges", "challenge_disbursements", "sol_reward_disbursements")
    ),
    facts=f"""
        SELECT
            deciding.user_id,
            deciding.referrer,
            deciding.blocknumber,
            {_IS_ACTIVE_REFERRER} AS is_active
        FROM ({_LATEST}) AS deciding
    """,
    conditions=(
        Condition(
            what="the latest event of the user",
            demanded="names another user as the one who brought him",
            has="CASE WHEN fact.user_id IS NULL THEN 'there is none'"
            " ELSE coalesce('user ' || fact.referrer, 'nobody') END",
            holds="fact.referrer <> fact.user_id",
        ),
        Condition(
            what="its block",
            demanded="{starting_block} or later",
            has="coalesce(fact.blocknumber::text, 'none')",
            holds="fact.blocknumber >= :starting_block::bigint",
        ),
        Condition(
            what="who brought the user",
            demanded="active",
            has="CASE WHEN fact.is_active THEN 'active' WHEN fact.referrer IS NOT NULL THEN 'not active'"
            " ELSE 'nobody' END",
            holds="fact.is_active",
        ),
    ),
)

REFERRALS = (
    _referrals("r", "referrals", account=_NOT_VERIFIED),
    _referrals("rv", "referrals by verified users", account=VERIFIED),
    REFERRED_USERS,
)
