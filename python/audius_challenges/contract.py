"""The contract with the discovery schema: which tables and columns there must be, and of which types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from audius_challenges.database import Database
from audius_challenges.errors import (
    DATATYPE_MISMATCH,
    OBJECT_NOT_IN_PREREQUISITE_STATE,
    UNDEFINED_COLUMN,
    UNDEFINED_TABLE,
    ChallengeError,
)

_INTEGER = ("integer", "bigint", "smallint")
_TEXT = ("character varying", "text")
_BOOLEAN = ("boolean",)
_TIMESTAMP = ("timestamp without time zone",)
_TIMESTAMPTZ = ("timestamp with time zone",)
_DATE = ("date",)
_JSONB = ("jsonb",)
_FLOAT = ("double precision", "real", "numeric")

# A column has one type in whichever table it stands, but for these.
_TYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "user_id",
            "blocknumber",
            "follower_user_id",
            "followee_user_id",
            "track_id",
            "owner_id",
            "playlist_id",
            "playlist_owner_id",
            "play_item_id",
            "count",
            "follower_count",
            "following_count",
            "number",
            "step_count",
            "starting_block",
            "current_step_count",
            "completed_blocknumber",
            "listen_streak",
            "rank",
        ),
        _INTEGER,
    ),
    **dict.fromkeys(
        (
            "txhash",
            "handle_lc",
            "name",
            "bio",
            "profile_picture",
            "profile_picture_sizes",
            "cover_photo",
            "cover_photo_sizes",
            "challenge_id",
            "specifier",
            "version",
            "type",
            "time_range",
        ),
        _TEXT,
    ),
    **dict.fromkeys(
        (
            "is_current",
            "is_delete",
            "is_verified",
            "is_deactivated",
            "is_available",
            "is_unlisted",
            "is_private",
            "is_complete",
            "active",
            "profile_description",
            "profile_name",
            "profile_cover_photo",
            "follows",
            "favorites",
            "reposts",
        ),
        _BOOLEAN,
    ),
    "stem_of": _JSONB,
    "created_at": _TIMESTAMP,
    "completed_at": _TIMESTAMP,
    "last_listen_date": _TIMESTAMP,
    "timestamp": _DATE,
    "week": _DATE,
    "score": _FLOAT,
}
_EXCEPTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("plays", "id"): _INTEGER,
    ("challenges", "id"): _TEXT,
    ("challenges", "amount"): _TEXT,
    ("trending_results", "id"): _TEXT,
    ("user_challenges", "amount"): _INTEGER,
    ("user_challenges", "created_at"): _TIMESTAMPTZ,
    ("challenge_profile_completion", "profile_picture"): _BOOLEAN,
}

CATALOG = {"challenges": "id amount active step_count starting_block"}
USER_CHALLENGES = {
    "user_challenges": "challenge_id user_id specifier is_complete current_step_count completed_blocknumber"
    " amount created_at completed_at",
    "blocks": "number",
}
ELIGIBLE_USERS = {"users": "user_id is_current is_deactivated blocknumber txhash"}

BLOCK_STAMPED = ("users", "follows", "saves", "reposts", "tracks", "playlists")
DERIVED = (
    "challenges",
    "user_challenges",
    "challenge_profile_completion",
    "challenge_listen_streak",
    "trending_results",
)
TABLES = (
    *BLOCK_STAMPED,
    "plays",
    "aggregate_monthly_plays",
    "aggregate_user",
    "track_trending_scores",
    "playlist_trending_scores",
    "blocks",
    *DERIVED,
)

_COLUMNS = """
    SELECT
        relation.relname::text AS table_name,
        attribute.attname::text AS column_name,
        format_type(coalesce(nullif(kind.typbasetype, 0), kind.oid), NULL) AS type_name
    FROM pg_class AS relation
    INNER JOIN pg_attribute AS attribute
        ON attribute.attrelid = relation.oid
        AND attribute.attnum > 0
        AND NOT attribute.attisdropped
    INNER JOIN pg_type AS kind
        ON kind.oid = attribute.atttypid
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    WHERE namespace.nspname = :name
        AND relation.relname = ANY(:tables)
        AND relation.relkind IN ('r', 'p', 'f', 'v', 'm')
"""

_KEYLESS = """
    SELECT relation.relname::text AS table_name
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
    WHERE namespace.nspname = :name
        AND relation.relname = ANY(:tables)
        AND NOT EXISTS (
            SELECT FROM pg_index AS key
            WHERE key.indrelid = relation.oid
                AND key.indisunique
                AND key.indisvalid
        )
    ORDER BY relation.relname
"""


@dataclass(frozen=True)
class Contract:
    """The discovery tables as they are.

    :ivar columns: table name → column name → type
    :ivar keyless: tables that we write and that have no unique index, as in mid-restore
    """

    schema: str
    columns: Mapping[str, Mapping[str, str]]
    keyless: Sequence[str]

    def require(self, *needs: Mapping[str, str]) -> None:
        """Demand tables with columns.

        :param needs: table name → column names, separated by spaces
        :raises ChallengeError: naming the first table or column that is missing or of another type
        """
        for need in needs:
            for table, names in need.items():
                self._require_table(table, names.split())

    def require_keys(self) -> None:
        """Demand the keys without which nothing can be written once and only once.

        :raises ChallengeError: naming the tables without one
        """
        if self.keyless:
            raise ChallengeError(
                f"no primary key on {', '.join(f'{self.schema}.{table}' for table in self.keyless)}",
                sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
                hint="If a restore is under way, let it finish.",
            )

    def _require_table(self, table: str, names: Iterable[str]) -> None:
        if table not in self.columns:
            raise ChallengeError(
                f'table "{self.schema}.{table}" does not exist',
                sqlstate=UNDEFINED_TABLE,
                hint="The discovery tables must be in the schema of the extension, under their own names.",
            )
        for name in names:
            expected = _EXCEPTIONS.get((table, name)) or _TYPES[name]
            if name not in self.columns[table]:
                raise ChallengeError(
                    f'column "{name}" of table "{self.schema}.{table}" does not exist',
                    sqlstate=UNDEFINED_COLUMN,
                    hint=f"It should be of type {expected[0]}.",
                )
            if self.columns[table][name] not in expected:
                raise ChallengeError(
                    f'column "{name}" of table "{self.schema}.{table}" is of type {self.columns[table][name]}',
                    sqlstate=DATATYPE_MISMATCH,
                    hint=f"It should be of type {expected[0]}.",
                )

    @property
    def has_discovery_tables(self) -> bool:
        """Whether this is a discovery database at all, whole or with some table missing."""
        return {"users", "challenges", "user_challenges"} <= self.columns.keys()

    @property
    def greatest_block(self) -> str:
        """An SQL expression: the greatest of `blocks.number` and every source block number, 0 without any (rule 7).

        A source table that is missing fails the processors that read it, not those that only complete something.
        """
        blocks = [
            f"(SELECT max({table}.{column}) FROM discovery.{table})"
            for table, column in (("blocks", "number"), *((name, "blocknumber") for name in BLOCK_STAMPED))
            if self.columns.get(table, {}).get(column) in _INTEGER
        ]
        return f"greatest({', '.join([*blocks, '0'])})"


def read_contract(db: Database) -> Contract:
    """Look up what the discovery schema has."""
    columns: dict[str, dict[str, str]] = {}
    for row in db.rows(_COLUMNS, name=db.schema, tables=list(TABLES)):
        columns.setdefault(row["table_name"], {})[row["column_name"]] = row["type_name"]
    keyless = [row["table_name"] for row in db.rows(_KEYLESS, name=db.schema, tables=list(DERIVED))]
    return Contract(db.schema, columns, keyless)
