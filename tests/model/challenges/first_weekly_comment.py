"""c, first weekly comment: one row for each user and ISO week, in UTC, in which he has commented."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tests.model.rows import Comment
from tests.model.rules import Deed, DeedsRule, Terms

CLOCKS_DIFFER = timedelta(minutes=5)
LAST_DECIMAL_WEEK = "202511"
"""The last week whose rows once named the user in decimal."""


def week_of(at: datetime) -> str:
    """The ISO week, with its year."""
    year, week, _ = at.isocalendar()
    return f"{year:04}{week:02}"


class FirstWeeklyComment(DeedsRule):
    IDS = ("c",)

    def deeds(self, terms: Terms) -> Iterator[Deed]:
        latest = terms.as_of.astimezone(UTC).replace(tzinfo=None) + CLOCKS_DIFFER
        for row in self.sources.comments:
            if (
                not row.is_delete
                and row.is_visible is not False
                and (row.blocknumber or 0) >= terms.starting_block
                and row.created_at <= latest
            ):
                week = week_of(row.created_at)
                earlier = (f"{row.user_id}:{week}",) if week <= LAST_DECIMAL_WEEK else ()
                yield Deed(row.user_id, specifier_of_comment(row), earlier)

    def every_deed(self) -> Iterator[str]:
        return map(specifier_of_comment, self.sources.comments)


def specifier_of_comment(row: Comment) -> str:
    return f"{row.user_id:x}:{week_of(row.created_at)}"
