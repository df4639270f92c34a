"""The settings, `audius_challenges.<name>`: their defaults, and what counts as a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from audius_challenges.database import Database
from audius_challenges.errors import ChallengeError

PREFIX = "audius_challenges."
MAX_INTEGER = 2_147_483_647

_MILLISECONDS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}
_BOOLEANS = {
    **dict.fromkeys(("on", "true", "yes", "1"), True),
    **dict.fromkeys(("off", "false", "no", "0"), False),
}


def _boolean(text: str) -> bool:
    return _BOOLEANS[text.lower()]


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text):
            raise ValueError(text)
        if not least <= int(text) <= MAX_INTEGER:
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
    "time_budget": _Setting("25s", _milliseconds, "a whole number with a unit: ms, s, min or h"),
    "lock_timeout": _Setting("2s", _milliseconds, "a whole number with a unit: ms, s, min or h"),
    "trigger_schemas": _Setting("", _names, "names of schemas, separated by commas"),
}


@dataclass(frozen=True)
class Settings:
    """What is set for this session.

    :ivar enabled: whether runs do anything
    :ivar max_completions: completions of one challenge in one run beyond which it fails, outside a first build
    :ivar slice_users: users a slice of a first build, a catch-up or a full scan
    :ivar sweep_users: users a run's slice of the sweep; 0 switches the sweep off
    :ivar changed_users: changed users of one challenge beyond which the sweep catches up instead
    :ivar time_budget: milliseconds after which a tick begins no further slice
    :ivar lock_timeout: milliseconds to wait for a lock; 0 waits without end
    :ivar trigger_schemas: further schemas that the application's triggers need on the search_path
    """

    enabled: bool
    max_completions: int
    slice_users: int
    sweep_users: int
    changed_users: int
    time_budget: int
    lock_timeout: int
    trigger_schemas: tuple[str, ...]


def read_settings(db: Database) -> Settings:
    """Read every setting.

    :raises ChallengeError: naming the setting, its value and what it takes
    """
    # A placeholder reads back as '' after a SET LOCAL has ended: that is its default, too.
    found = db.rows(
        """
        SELECT
            names.name,
            coalesce(current_setting(names.name, true), '') AS setting
        FROM unnest(:names::text[]) AS names (name)
        """,
        names=[PREFIX + name for name in _SETTINGS],
    )
    values = {}
    for row in found:
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
    return Settings(**values)
