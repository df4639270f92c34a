"""All processors, in run order. A new challenge is a file here and a line below."""

from __future__ import annotations

from audius_challenges.processor import Processor
from audius_challenges.processors.first_playlist import FIRST_PLAYLIST
from audius_challenges.processors.listen_streak import LISTEN_STREAK
from audius_challenges.processors.play_milestones import PLAY_MILESTONES
from audius_challenges.processors.profile_completion import PROFILE_COMPLETION
from audius_challenges.processors.profile_verified import PROFILE_VERIFIED
from audius_challenges.processors.track_upload import TRACK_UPLOAD
from audius_challenges.processors.trending import TRENDING

PROCESSORS: tuple[Processor, ...] = (
    TRACK_UPLOAD,
    FIRST_PLAYLIST,
    PROFILE_COMPLETION,
    PROFILE_VERIFIED,
    LISTEN_STREAK,
    *PLAY_MILESTONES,
    *TRENDING,
)
