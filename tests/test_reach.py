"""The table of explanation/scale.md is what follows from what was measured."""

import pytest

from bench import reach
from bench.reach import CHANGED, FACTORS, FIRST_BUILD, NODES, PER_USER, PERIOD, Reach
from devtools import REPOSITORY

PAGE = reach.PAGE.read_text()
MEASURED = (REPOSITORY / "docs" / "explanation" / "performance.md").read_text()


def rounded(number: float) -> str:
    """Two digits, or all before the point."""
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def test_the_table_is_that_of_the_figures() -> None:
    for factor in FACTORS:
        at = Reach(factor)
        cells = [
            f"{factor} x",
            f"{at.users / 1e6:g} million",
            f"{at.changed:,}",
            f"{at.tick:.3g} s",
            f"{at.tick / PERIOD:.0%}".replace("%", " %"),
            f"{rounded(at.sweep_round)} h",
            f"{rounded(at.first_build / 3600)} h",
            f"{at.disk:,.0f} GB",
        ]
        assert f"| {' | '.join(cells)} |" in PAGE
    assert f"{PER_USER * 1000:.2g} ms" in PAGE
    assert f"{PERIOD / PER_USER:,.0f}"[:2] == "68"
    assert "68,000 users" in PAGE


def test_the_figures_are_those_of_the_page_about_performance() -> None:
    for users, seconds in CHANGED.items():
        row = next(
            line
            for line in MEASURED.splitlines()
            if line.strip().startswith(f"tick after {users:,} users changed  ") and " scale 1 " in line
        )
        assert f"{seconds * 1000:,.0f} ms" in row
    table = MEASURED.split("First build at scale 1")[1].split("eligible users")[0].splitlines()
    builds = [float(line.split()[2]) for line in table if len(line.split()) > 3 and line.split()[3] == "s"]
    assert round(sum(builds)) == FIRST_BUILD


def test_the_picture_of_shares_is_that_of_the_table() -> None:
    build, changes = reach.first_build(PAGE), reach.changes(PAGE)
    for shared in (build, changes):
        assert [len(shared.each_node), *map(len, shared.primary.values())] == [len(NODES)] * (1 + len(shared.primary))
        assert shared.each_node == sorted(shared.each_node, reverse=True)
    # Each part of the primary's, and their sum, has three digits.
    parts = [sum(seconds) for seconds in zip(*build.primary.values(), strict=True)]
    assert [[build.alone], *([pytest.approx(part, abs=0.2)] for part in parts)] == reach.figures(
        PAGE, "first build: primary"
    )
