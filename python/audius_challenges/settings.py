"""The settings, `audius_challenges.<name>`: their defaults, what counts as a value, and names that mean nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from audius_challenges.annotations import Any
from audius_challenges.database import AnyPlan, Database, Row
from audius_challenges.errors import ChallengeError

PREFIX = "audius_challenges."
MAX_INTEGER = 2_147_483_647
_MAX_DAYS = 36_500
_MOST_WORKERS = 64

_MILLISECONDS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}
_BOOLEANS = {
    **dict.fromkeys(("on", "true", "yes", "1"), True),
    **dict.fromkeys(("off", "false", "no", "0"), False),
}


def _boolean(text: str) -> bool:
    return _BOOLEANS[text.lower()]


def _count(least: int, most: int = MAX_INTEGER) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text):
            raise ValueError(text)
        if not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return parse


def _milliseconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})\s*(ms|s|min|h)", text)
    if match is None:
        raise ValueError(text)
    duration = int(match[1]) * _MILLISECONDS[match[2]]
    if duration > MAX_INTEGER:
        raise ValueError(text)
    return duration


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if not all(names):
        raise ValueError(text)
    return names


@dataclass(frozen=True)
class Share:
    """Which share of the users is derived here: one of so many.

    :ivar number: from 0 on
    :ivar of: how many there are
    """

    number: int
    of: int

    def __str__(self) -> str:
        """As the setting has it."""
        return f"{self.number}/{self.of}"


def share_of(text: str) -> Share | None:
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(text)
    return Share(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class _Setting:
    default: str
    parse: Callable[[str], Any]
    expected: str


_SETTINGS = {
    "enabled": _Setting("on", _boolean, "on or off"),
    "max_completions": _Setting("10000", _count(0), f"a whole number from 0 to {MAX_INTEGER}"),
    "slice_users": _Setting("50000", _count(1), f"a whole number from 1 to {MAX_INTEGER}"),
    "sweep_users": _Setting("5000", _count(0), f"a whole number from 0 to {MAX_INTEGER}"),
    "changed_users": _Setting("100000", _count(1), f"a whole number from 1 to {MAX_INTEGER}"),
    "workers": _Setting("1", _count(1, _MOST_WORKERS), f"a whole number from 1 to {_MOST_WORKERS}"),
    "time_budget": _Setting("25s", _milliseconds, "a whole number with a unit: ms, s, min or h"),
    "lock_timeout": _Setting("2s", _milliseconds, "a whole number with a unit: ms, s, min or h"),
    "history_days": _Setting("30", _count(1, _MAX_DAYS), f"a whole number from 1 to {_MAX_DAYS}"),
    "trigger_schemas": _Setting("", _names, "names of schemas, separated by commas"),
    "share": _Setting("", share_of, "k/N, k from 0 to N - 1"),
}


@dataclass(frozen=True)
class Unknown:
    """A setting whose name begins as ours do, and that is none of ours: nothing reads it.

    :ivar reset: what takes it away
    """

    name: str
    reset: str


@dataclass(frozen=True)
class Settings:
    """What is set for this session.

    :ivar enabled: whether runs do anything
    :ivar max_completions: completions of one challenge in one run beyond which it fails, outside a first build
    :ivar slice_users: users a slice of a first build, a catch-up or a full scan
    :ivar sweep_users: users a run's slice of the sweep; 0 switches the sweep off
    :ivar changed_users: changed users of one challenge beyond which the sweep catches up instead
    :ivar workers: sessions that examine all users together where that is due: the tick and its helpers
    :ivar time_budget: milliseconds after which a tick begins no further slice
    :ivar lock_timeout: milliseconds to wait for a lock; 0 waits without end
    :ivar history_days: days that the history of runs is kept
    :ivar trigger_schemas: further schemas that the application's triggers need on the search_path
    :ivar share: which share of the users is derived here; None: this is no node of shares
    :ivar unknown: what is set for this database, or for roles, under a name that is unknown
    """

    enabled: bool
    max_completions: int
    slice_users: int
    sweep_users: int
    changed_users: int
    workers: int
    time_budget: int
    lock_timeout: int
    history_days: int
    trigger_schemas: tuple[str, ...]
    share: Share | None = None
    unknown: tuple[Unknown, ...] = ()


@dataclass(frozen=True)
class Stored:
    """A setting as it is kept for this database, for roles, or for both.

    :ivar role: whom it is for; None: for everybody
    :ivar scope: the same as ALTER takes it, such as DATABASE discovery
    """

    name: str
    value: str
    role: str | None
    scope: str

    @property
    def reset(self) -> str:
        """SQL that takes it away."""
        return f"ALTER {self.scope} RESET {self.name};"


# Of pg_db_role_setting: whom a setting is for, as ALTER takes it.
_SCOPE = """
            CASE
                WHEN kept.setrole = 0 AND kept.setdatabase = 0 THEN 'ROLE ALL'
                WHEN kept.setrole = 0 THEN format('DATABASE %I', current_database())
                WHEN kept.setdatabase = 0 THEN format('ROLE %I', pg_get_userbyid(kept.setrole))
                ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(kept.setrole), current_database())
            END
"""

_FOR_THIS_DATABASE = """
    kept.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""

# A placeholder reads back as '' after a SET LOCAL has ended: that is its default, too.
_READ = AnyPlan(f"""
    SELECT
        names.name,
        coalesce(current_setting(names.name, true), '') AS setting,
        NULL AS reset
    FROM unnest(:names::text[]) AS names (name)
    UNION ALL
    SELECT
        stored.name,
        '',
        format(
            'ALTER %s RESET %s;',
            {_SCOPE},
            stored.name
        )
    FROM pg_db_role_setting AS kept
    CROSS JOIN LATERAL unnest(kept.setconfig) AS entry (text)
    CROSS JOIN LATERAL (SELECT lower(split_part(entry.text, '=', 1)) AS name) AS stored
    WHERE {_FOR_THIS_DATABASE}
        AND starts_with(stored.name, :prefix::text)
        AND stored.name <> ALL(:names::text[])
""")

# What holds for a role comes first where several are set.
_STORED = f"""
    SELECT
        lower(split_part(entry.text, '=', 1)) AS name,
        substr(entry.text, strpos(entry.text, '=') + 1) AS value,
        CASE WHEN kept.setrole <> 0 THEN pg_get_userbyid(kept.setrole)::text END AS role,
        {_SCOPE} AS scope
    FROM pg_db_role_setting AS kept
    CROSS JOIN LATERAL unnest(kept.setconfig) AS entry (text)
    WHERE {_FOR_THIS_DATABASE}
        AND lower(split_part(entry.text, '=', 1)) = ANY(:names::text[])
    ORDER BY
        kept.setrole = 0,
        kept.setdatabase = 0
"""

_MAY_READ_FILES = "SELECT has_function_privilege('pg_show_all_file_settings()', 'EXECUTE')"

_FILES = """
    SELECT
        lower(name) AS name,
        format('Delete line %s of %s.', sourceline, sourcefile) AS reset
    FROM pg_file_settings
    WHERE starts_with(lower(name), :prefix::text)
        AND lower(name) <> ALL(:names::text[])
"""

_IN_SESSION = """
    SELECT
        names.name,
        format('RESET %s;', names.name) AS reset
    FROM unnest(:names::text[]) AS names (name)
    WHERE current_setting(names.name, true) <> ''
"""


def read_settings(db: Database) -> Settings:
    """Read every setting.

    :raises ChallengeError: naming the setting, its value and what it takes
    """
    values = {}
    found = _read(db)
    for row in found:
        if row["reset"]:
            continue
        name = row["name"].removeprefix(PREFIX)
        setting = _SETTINGS[name]
        try:
            values[name] = setting.parse(row["setting"].strip() or setting.default)
        except (KeyError, ValueError):
            raise ChallengeError(
                f'invalid value for setting "{row["name"]}": "{row["setting"]}"',
                detail=f"Expected {setting.expected}; the default is {setting.default or 'none'}.",
                hint=f"RESET {row['name']}; in the session, or with ALTER DATABASE or ALTER ROLE if it was set there.",
            ) from None
    return Settings(**values, unknown=_unknown(found))


def unknown_settings(db: Database) -> tuple[Unknown, ...]:
    """Every setting of ours with an unknown name that can be found: of this database, of roles, in the server's files
    if this role may read them, and in the session, which PostgreSQL lists nowhere, those that are nearly spelt right.
    """
    found = [row for row in _read(db) if row["reset"]]
    if db.value(_MAY_READ_FILES):
        found += db.rows(_FILES, prefix=PREFIX, names=_known())
    seen = {row["name"] for row in found}
    misspelt = [PREFIX + name for known in _SETTINGS for name in sorted(_misspelt(known))]
    found += [row for row in db.rows(_IN_SESSION, names=misspelt) if row["name"] not in seen]
    return _unknown(found)


def stored_settings(db: Database, *names: str) -> list[Stored]:
    """What is kept for this database or for roles, what wins first; without names: of all that are ours."""
    return [Stored(**row) for row in db.rows(_STORED, names=list(names) or _known())]


def expected_of(stored: Stored) -> str | None:
    """What a setting of ours takes, if it does not take this value."""
    setting = _SETTINGS[stored.name.removeprefix(PREFIX)]
    try:
        setting.parse(stored.value.strip() or setting.default)
    except (KeyError, ValueError):
        return setting.expected
    return None


def is_off(text: str) -> bool:
    """Whether a value of `enabled` says off."""
    return _BOOLEANS.get(text.strip().lower()) is False


def nearest_name(unknown: Unknown) -> str:
    """The setting that may have been meant."""
    import difflib  # noqa: PLC0415 - seldom needed, and each tick has a session of its own

    return difflib.get_close_matches(unknown.name, _known(), n=1, cutoff=0)[0]


def warn_of(db: Database, unknown: Iterable[Unknown]) -> None:
    """Say that these have no effect, and what may have been meant."""
    for setting in unknown:
        db.plpy.warning(
            f'unknown setting "{setting.name}": it has no effect',
            hint=f"The nearest name is {nearest_name(setting)}. {setting.reset}",
        )


def _known() -> list[str]:
    return [PREFIX + name for name in _SETTINGS]


def _read(db: Database) -> list[Row]:
    return db.rows(_READ, names=_known(), prefix=PREFIX)


def _unknown(rows: Iterable[Row]) -> tuple[Unknown, ...]:
    return tuple(dict.fromkeys(Unknown(row["name"], row["reset"]) for row in rows if row["reset"]))


def _misspelt(name: str) -> set[str]:
    """The name with a letter too few, with two letters swapped, with one twice, and with an s behind."""
    parts = [(name[:at], name[at:]) for at in range(len(name))]
    return {
        name + "s",
        *(before + after[1:] for before, after in parts),
        *(before + after[1::-1] + after[2:] for before, after in parts),
        *(before + after[0] + after for before, after in parts),
    } - _SETTINGS.keys()
