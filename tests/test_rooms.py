"""The rooms of the package, and who may look into which: `python/audius_challenges/__init__.py` describes them."""

from __future__ import annotations

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from devtools import REPOSITORY

PACKAGE = "audius_challenges"
ROOT = REPOSITORY / "python"

ROOMS = ("entry", "operation", "challenges", "engine", "ground")
"""From the top to the bottom. A module imports from its own room and from those below."""
GROUND = ("annotations", "catalog", "contract", "database", "errors", "settings", "sources")
NO_ROOM = f"{PACKAGE}.__init__"
"""Says what the package is, and imports nothing."""
RUN_ORDER = f"{PACKAGE}.challenges.__init__"


@cache
def modules() -> dict[str, Path]:
    """The package's modules by their full names; a package itself is its `__init__`."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    }


def room(module: str) -> str:
    """Where a module is. Raises ValueError if it is nowhere."""
    name = module.split(".")[1]
    found = "ground" if name in GROUND else name
    if found not in ROOMS:
        raise ValueError(f"{module} is in no room")
    return found


@cache
def imported(module: str) -> frozenset[str]:
    """What a module imports, wherever it does so: modules of the package, and the first name of others."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(_module(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            # `from package import name`: the name may be a module.
            found.update(_module(f"{node.module}.{alias.name}", node.module) for alias in node.names)
    return frozenset(found)


def _module(*candidates: str | None) -> str:
    known = (name for each in candidates for name in (each, f"{each}.__init__") if name in modules())
    if found := next(known, None):
        return found
    first = str(candidates[0])
    assert not first.startswith(f"{PACKAGE}."), f"there is no {first}"
    return first.split(".", maxsplit=1)[0]


def room_or_none(module: str) -> str | None:
    """Where a module is; None for what is above all rooms."""
    return None if module == NO_ROOM else room(module)


def ours(module: str) -> set[str]:
    """What a module imports from the package; its version is for everybody."""
    return {each for each in imported(module) if each in modules()} - {NO_ROOM}


def is_above(module: str, other: str) -> bool:
    """Whether a module is in a higher room than another; the package itself is below them all."""
    return module != NO_ROOM and (other == NO_ROOM or ROOMS.index(room(module)) < ROOMS.index(room(other)))


def test_a_module_imports_from_its_own_room_and_from_those_below() -> None:
    climbing = [(module, each) for module in modules() for each in ours(module) if is_above(each, module)]
    assert climbing == []


def test_the_package_imports_nothing_but_the_standard_library_and_itself() -> None:
    known = sys.stdlib_module_names | modules().keys()
    assert [(module, each) for module in modules() for each in imported(module) - known] == []


def test_challenges_are_imported_by_the_run_order_alone() -> None:
    challenges = {each for each in modules() if room_or_none(each) == "challenges"} - {RUN_ORDER}
    importing = {module for module in modules() if imported(module) & challenges}
    assert importing == {RUN_ORDER}
    assert challenges - imported(RUN_ORDER) == set()


def test_modules_import_each_other_in_no_circle() -> None:
    TopologicalSorter({module: imported(module) for module in modules()}).prepare()  # raises CycleError


def test_every_room_has_modules() -> None:
    assert {room_or_none(module) for module in modules()} == {None, *ROOMS}


def test_the_command_asks_by_sql_alone() -> None:
    """It imports nothing of the package that runs in the backend, which is not where it is installed."""
    for path in sorted((ROOT / "audius_challenges_cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert PACKAGE not in {name.split(".", maxsplit=1)[0] for name in names}, path.name
