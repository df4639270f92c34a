"""v, connect verified: the user's account is verified."""

from __future__ import annotations

from audius_challenges.engine.explanation import VERIFIED
from audius_challenges.engine.rule import Rule

CONNECT_VERIFIED = Rule(
    id="v",
    description="connect verified",
    found="""
        SELECT
            eligible.user_id,
            1 AS steps
        FROM eligible
        WHERE eligible.is_verified
    """,
    conditions=(VERIFIED,),
)
