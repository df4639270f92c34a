"""All challenges, in run order. A new one is a file here and a line below."""

from __future__ import annotations

from audius_challenges.challenges.audio_matching import AUDIO_MATCHING
from audius_challenges.challenges.connect_verified import CONNECT_VERIFIED
from audius_challenges.challenges.cosign import COSIGN
from audius_challenges.challenges.first_playlist import FIRST_PLAYLIST
from audius_challenges.challenges.first_weekly_comment import FIRST_WEEKLY_COMMENT
from audius_challenges.challenges.listen_streak import LISTEN_STREAK
from audius_challenges.challenges.mobile_install import MOBILE_INSTALL
from audius_challenges.challenges.pinned_comment import PINNED_COMMENT
from audius_challenges.challenges.play_milestones import PLAY_MILESTONES
from audius_challenges.challenges.profile_completion import PROFILE_COMPLETION
from audius_challenges.challenges.referrals import REFERRALS
from audius_challenges.challenges.remix_contest import REMIX_CONTEST
from audius_challenges.challenges.tastemaker import TASTEMAKER
from audius_challenges.challenges.track_upload import TRACK_UPLOAD
from audius_challenges.challenges.trending import TRENDING
from audius_challenges.engine.processor import Processor

CHALLENGES: tuple[Processor, ...] = (
    TRACK_UPLOAD,
    FIRST_PLAYLIST,
    PROFILE_COMPLETION,
    CONNECT_VERIFIED,
    LISTEN_STREAK,
    *PLAY_MILESTONES,
    *TRENDING,
    FIRST_WEEKLY_COMMENT,
    PINNED_COMMENT,
    COSIGN,
    REMIX_CONTEST,
    TASTEMAKER,
    *AUDIO_MATCHING,
    MOBILE_INSTALL,
    *REFERRALS,
)

ANY_WEEK = tuple(processor.id for processor in TRENDING)
"""Those that can be run for a time before their last run: a week is paid once, whenever that is."""
