"""What histories are invented from: ids and times come from small spaces, so that they collide."""

from datetime import UTC, date, datetime, timedelta

BASE = datetime(2025, 10, 20, 9, 30, tzinfo=UTC).replace(tzinfo=None)
LATER = datetime(2026, 1, 2, tzinfo=UTC).replace(tzinfo=None)
HOUR = timedelta(hours=1)
SHORTLY = timedelta(microseconds=1)

USERS = (10, 255, 256)
STRANGER = 4096
FANS = 5000
"""The first of some more users."""
HASHES = ("0xa", "0xb", "0xc")
BLOCKS = (None, 25346435, 25346436, 28349999, 28350000, 28350001)
SLOTS = (25346436, 28350000, 220157040, 220157041, 220157042)
TRACKS = (1, 2, 3, 4, 5)
UNHEARD = 1_000_000
"""Tracks from here on are listened to once, so that no two sessions count into the same month."""
CHARTED = 100
"""The first track, and playlist, of those that charts are about."""
COMMENTS = (3, 1_000, 1_001, 7_000_000, 7_000_001, 2_000_000_000)
"""Ids of comments, which clients choose."""
COMMENT_TIMES = tuple(
    map(
        datetime.fromisoformat,
        (
            "2024-12-29 23:59:59.999999",
            "2024-12-30",
            "2025-03-16 23:59:59.999999",
            "2025-03-17",
            "2025-11-06 12:00",
            "2025-11-07 00:05",
            "2025-11-10 00:04:59.999999",
            "2025-11-14 12:35:15.123456",
            "2025-11-14 12:35:15.123457",
            "2026-01-01",
            "2099-01-01",
        ),
    )
)
"""Where weeks begin, where specifiers changed, and 5 minutes after the clocks of runs."""
REMIXES = tuple(range(15, 25))
"""Tracks that are made of others: their hex numbers sort otherwise than the numbers do."""
COSIGN_TIMES = tuple(
    datetime(2025, 9, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(days=days, microseconds=microseconds)
    for days, microseconds in ((0, 0), (0, 1), (10, 0), (20, 0), (30, -1), (30, 0), (30, 1), (40, 0), (60, 0), (60, 1))
)
"""Ends of spans of 30 days."""
CONTESTS = (1, 2, 3, 15, 16, 255)
CONTEST_BLOCKS = (None, 28350000, 98950181, 98950182, 104186137, 104186138, 104186138, 104186139)
"""Where contests begin to count in prod and stage."""
WINNERS = 6000
"""The first of those who win together, more of them than a contest may reward."""
WON_TRACKS = 200
"""The first of their tracks."""
PAID_BEFORE = datetime(2025, 2, 3, 4, 5, 6, 789, UTC)
"""When an earlier service paid."""
MONTHS = (date(2024, 12, 1), date(2025, 1, 1), date(2025, 10, 1))
SCORE_TYPES = ("TRACKS", "UNDERGROUND_TRACKS", "PLAYLISTS")
PROFILE = ("name", "bio", "profile_picture", "profile_picture_sizes", "cover_photo", "cover_photo_sizes")
