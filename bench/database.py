"""The databases that are measured: generated discovery data, the extension with every challenge active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from audius_challenges.challenges import CHALLENGES as RUN_ORDER
from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery

GENERATOR = REPOSITORY / "discovery" / "generate.sql"

CHALLENGES = tuple(challenge.id for challenge in RUN_ORDER)
"""All of them, in run order."""

USER_DERIVED = ("u", "fp", "p", "v", "p1", "p2", "p3")
"""Those whose rows follow from a user's own rows; the models of the alternatives know only these."""

BY_HAND = tuple(challenge for challenge in CHALLENGES if challenge not in ("e", "tt", "tut", "tp"))
"""Those that are built by hand at any size: trending pays on Fridays alone, and a loop by hand for `e` takes long."""


def server_settings(scale: float) -> dict[str, str]:
    """Of the cluster: what a tick reads again and again stays in shared buffers, whatever becomes of the file cache."""
    return {
        "shared_buffers": f"{max(2, round(12 * scale))}GB",
        "fsync": "off",
        "max_wal_size": "16GB",
        "shared_preload_libraries": "",  # no pg_cron: a tick comes when it is measured, and then only
    }


# Far beyond any run: one CALL is a whole first build, and the sweep is on only where it is measured.
_DATABASE_SETTINGS = {"audius_challenges.time_budget": "10h", "audius_challenges.sweep_users": "0"}

_SOURCES = (
    "users",
    "follows",
    "saves",
    "reposts",
    "tracks",
    "playlists",
    "plays",
    "aggregate_monthly_plays",
    "comments",
    "user_events",
    "remixes",
    "events",
    "sol_purchases",
)
DERIVED = ("user_challenges", "challenge_profile_completion", "challenge_listen_streak", "trending_results")
_STATE = """
    SELECT pg_class.oid::regclass::text
    FROM pg_class
    WHERE relnamespace = 'audius_challenges'::regnamespace
        AND relkind = 'r'
        AND relname <> 'installation'
"""

# In production the application's notifications are many, and its trigger looks them up by their index.
_NOTIFICATIONS = """
    INSERT INTO notification (specifier, group_id, type, timestamp, user_ids)
    SELECT number::text, 'follow:' || number, 'follow', now(), ARRAY[number]
    FROM generate_series(1, %s) AS follower (number)
"""

# What two builds of the same sources must agree on; the times of e, cs and w are those of what is rewarded.
_DIGEST = """
    SELECT
        challenge_id,
        count(*),
        count(*) FILTER (WHERE is_complete),
        sum(hashtextextended(
            concat_ws(
                ' ', user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount,
                CASE WHEN challenge_id IN ('e', 'cs', 'w') THEN created_at END,
                CASE WHEN challenge_id = 'e' THEN completed_at END
            ),
            0
        ))::text
    FROM user_challenges
    GROUP BY challenge_id
    UNION ALL
    SELECT 'challenge_profile_completion', count(*), 0, sum(hashtextextended(completion::text, 0))::text
    FROM challenge_profile_completion AS completion
    UNION ALL
    SELECT 'challenge_listen_streak', count(*), 0, sum(hashtextextended(streak::text, 0))::text
    FROM challenge_listen_streak AS streak
"""


@dataclass(frozen=True)
class Digest:
    """What a build wrote: rows, complete ones among them, and a sum of the hashes of all."""

    rows: int
    complete: int
    hash: str | None


@dataclass(frozen=True)
class Subject:
    """One generated database with the extension in it.

    scale: its size, 1 being production's.
    sizes: rows of each source table; ``users`` counts ids.
    bytes: what the source tables take, indexes included.
    """

    scale: float
    discovery: Discovery
    sizes: Mapping[str, int]
    bytes: int

    def connect(self) -> psycopg.Connection[Any]:
        """A new session, each statement a transaction of its own; the caller closes it."""
        return self.discovery.connect()

    def use(self, version: str, challenges: Sequence[str] | None = None) -> tuple[str, ...]:
        """Replaces the extension by another version of it, and forgets what was derived.

        challenges: which are active; None: all that this version knows. Returns them.
        """
        with self.connect() as connection:
            connection.execute("DROP EXTENSION IF EXISTS audius_challenges")
            connection.execute(f"{CREATE_EXTENSION.replace(' CASCADE', '')} VERSION '{version}' CASCADE")
            known = [name for (name,) in connection.execute("SELECT challenge_id FROM challenge_status")]
            active = [name for name in known if challenges is None or name in challenges]
            connection.execute("UPDATE challenges SET active = id = ANY(%s)", [active])
        self.forget()
        return tuple(active)

    def forget(self) -> None:
        """Empties what is derived, and the extension's memory of it: the next run is a first build."""
        with self.connect() as connection:
            connection.execute(f"TRUNCATE {', '.join(_forgotten(connection))}")
            connection.execute(_NOTIFICATIONS, [self.sizes["users"]])
            connection.execute("ANALYZE notification")

    def settle(self) -> None:
        """What autovacuum would have done some time after a build."""
        with self.connect() as connection:
            connection.execute(f"VACUUM (ANALYZE) {', '.join(_forgotten(connection))}")

    def digest(self) -> dict[str, Digest]:
        """What the derived tables hold, by challenge."""
        with self.connect() as connection:
            connection.execute("SET timezone = 'UTC'")
            return {challenge: Digest(*rest) for challenge, *rest in connection.execute(_DIGEST)}


def create_subject(cluster: Cluster, scale: float, seed: int) -> Subject:
    """Generates a database of this size and installs the extension; the sources are vacuumed and analyzed."""
    discovery = create_discovery(cluster, f"discovery_{scale:g}".replace(".", "_"))
    discovery.psql(GENERATOR, variables={"scale": f"{scale:.6f}", "seed": str(seed)})
    with discovery.connect() as connection:
        # The log of writes is there for tests; production has the other trigger, which stays.
        connection.execute("DROP TRIGGER log_user_challenge ON user_challenges")
        connection.execute(CREATE_EXTENSION)
        connection.execute("UPDATE challenges SET active = true")
        for name, value in _DATABASE_SETTINGS.items():
            connection.execute(f"ALTER DATABASE {discovery.name} SET {name} = '{value}'")
        sizes = {name: _value(connection, f"SELECT count(*) FROM {name}") for name in _SOURCES}
        sizes["users"] = _value(connection, "SELECT count(DISTINCT user_id) FROM users")
        total = sum(_value(connection, f"SELECT pg_total_relation_size('{name}')") for name in _SOURCES)
    subject = Subject(scale, discovery, sizes, total)
    subject.forget()
    return subject


def _forgotten(connection: psycopg.Connection[Any]) -> list[str]:
    return [*DERIVED, "notification", *(name for (name,) in connection.execute(_STATE))]


def _value(connection: psycopg.Connection[Any], statement: str) -> int:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])
