"""What annotations take from `typing`, without loading it: a tick has a session of its own, and evaluates none."""

from __future__ import annotations

TYPE_CHECKING = False  # True to type checkers

if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Any = Protocol = object

__all__ = ["TYPE_CHECKING", "Any", "Protocol"]
