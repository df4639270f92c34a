"""v, connect verified: the user's account is verified."""

from __future__ import annotations

from audius_challenges.changes import Source
from audius_challenges.user_derived import UserDerived

PROFILE_VERIFIED = UserDerived(
    id="v",
    description="connect verified",
    is_boolean=True,
    sources=(Source("users", "blocknumber", user="changed.user_id"),),
    user_columns="is_verified",
    progress="""
        SELECT
            eligible.user_id,
            eligible.is_verified::integer AS progress
        FROM eligible
    """,
)
