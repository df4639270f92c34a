"""The feed of changed rows: which users are affected by what was committed since a challenge last read its sources.

The simple solution: remember the highest number of a source (its block number, the id of a play) and take the rows
above it. It loses rows, since numbers are drawn before their transactions commit: a lower one can become visible after
a higher one was read.

So a look at a source remembers two things: the horizon, that is the oldest transaction that was still running, and the
position, that is how far numbers had come. What was not visible to the look has a row version of the horizon or of a
later transaction, so the next run takes just those versions. Where to find them: a transaction draws its numbers not
long before it begins to write. So none of those rows has a number below the position of the last look that was written
before the horizon's transaction began, which shows in that look's own row version. That is the window. Whatever the
order of commits, no row is missed; and where nothing has happened, nothing is found.

Rows may count only once they were checked, which changes them in place and leaves them their number. So the position
stays at the least number of those that wait for it, unless that is long ago. And since such a number may be of what the
row is about, rather than of its writing, the last pages of the table are looked at as well: that is where new rows are.

Looks are rows of `audius_challenges.look`, one for each source that has moved, under the number of the run. A challenge
only remembers the number that it has read up to. So a source is read once a run for all challenges that stand at the
same number, and a challenge that fails stays behind by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine.state import State
from audius_challenges.sources import TABLES, Source

# The position is not the greatest number but the one so many rows below it: one absurd number must not blind the feed,
# and rows whose number was drawn some time before their transaction began are still inside the window.
OUTLIERS = 500

# Blocks or ids by which the window reaches back further, for the same reason.
SLACK = 100

# On a node of shares a row comes when its transaction was committed, long after its number was drawn.
SLACK_OF_NODES = 5000

# So many of the latest blocks may be absurd ones, each with any number of rows.
LATEST_BLOCKS = 20

# Of so many of the latest plays, by the time at which they were played, LOW_PLAYS may have odd low ids; as long as the
# others are not all odd high ones, the position is not.
LATEST_PLAYS = 500
LOW_PLAYS = 20

# Beyond this age (transactions) a horizon is renewed though nothing was found: row versions carry 32 bits of their
# transaction's number, which can be told from older ones up to an age of 2^31.
RENEWAL_AGE = 1 << 24
TRUSTED_AGE = 1 << 31

# So many looks of a source are kept as they are; of more, as many as there are while a transaction stays open or a
# challenge fails for long, each two are merged.
MOST_LOOKS = 32

# A row that has waited for its check for so many blocks holds the position no longer: it may wait for ever.
WAITING_BLOCKS = 200_000

# So many pages at the end of a table whose rows are checked are read whatever their numbers are.
LAST_PAGES = 16

START_OF_TIME = -(1 << 62)


def _is_not_before(later: str, earlier: str) -> str:
    """SQL of whether one transaction is another one or after it, though only 32 bits of one of them may be known."""
    return f"(({later} - {earlier}) & 4294967295) < 2147483648"


@dataclass(frozen=True)
class Standing:
    """Where a look left a source.

    :ivar number: of the look whose row that is
    :ivar horizon: the oldest transaction that was still running
    :ivar position: how far numbers had come; None: the source had few rows
    :ivar oldest: the oldest look of the source that the window needs; None: all that there are
    :ivar least: the least number that an unread row can have, as far as looks say
    :ivar looks: how many looks that goes by
    """

    number: int
    horizon: int
    position: int | None
    oldest: int | None
    least: int
    looks: int


@dataclass(frozen=True)
class Present:
    """A source as it is now, in one snapshot, before its rows are read.

    :ivar next_xid: one more than the latest transaction that has ended
    """

    horizon: int
    next_xid: int
    position: int | None


class Feed:
    """The sources as one run reads them: each once for all challenges that have read it up to the same look.

    :param slack: blocks or ids by which windows reach back further
    :ivar number: of the look that this run takes
    """

    def __init__(self, db: Database, states: Iterable[State], *, slack: int = SLACK) -> None:
        self._db = db
        self._slack = slack
        reached = [state.look for state in states if state.look is not None]
        found = db.rows(STANDINGS, reached=reached, tables=list(_CLOCKED))
        self._standings = {(row.pop("look"), row.pop("source")): Standing(**row) for row in found}
        self._latest = max((look for look, _ in self._standings), default=0)
        self.number = max(self._latest, *reached, 0) + 1
        self._is_trimmed = False
        self._present: dict[str, Present] = {}
        self._has_changes: dict[tuple[str, int], bool] = {}
        self._changed: dict[tuple[Source, int], list[int]] = {}

    def is_followed(self, state: State, sources: Sequence[Source]) -> bool:
        """Whether the challenge has read these sources up to a look whose transactions can be told from others."""
        look = state.look
        return (
            look is not None
            and state.sources == _tables(sources)
            and all(self._is_trusted(look, table) for table in state.sources)
        )

    def changed_users(self, state: State, sources: Sequence[Source], limit: int) -> set[int]:
        """The users affected by rows that the challenge has not read.

        :param limit: beyond this many users of a source, just one more is returned
        """
        if state.look is None or state.look == self.number:
            return set()
        return {user for source in sources for user in self._users(source, state.look, limit)}

    def advance(self, state: State, sources: Sequence[Source], *, found: bool) -> None:
        """Have the challenge stand where it has read up to: at this run's look if there is anything to remember of it.

        :param found: whether there were changed rows
        """
        look = state.look
        if look is None or look == self.number:
            return
        if found or any(self._has_moved(look, table) for table in state.sources):
            self.follow(state, sources)
        else:
            state.look = self._latest

    def follow(self, state: State, sources: Sequence[Source]) -> None:
        """Have the challenge stand at this run's look: whatever is visible now counts as read.

        It is committed with what the challenge writes. The look's rows are written after the sources were read.
        """
        state.look, state.sources = self.number, _tables(sources)
        news = {table: self._read(table) for table in state.sources if self._is_news(table)}
        if news:
            self._db.rows(
                SAVE,
                number=self.number,
                sources=list(news),
                horizons=[present.horizon for present in news.values()],
                positions=[present.position for present in news.values()],
            )
            if not self._is_trimmed:
                self._trim()

    def _read(self, table: str) -> Present:
        if table not in self._present:
            self._present[table] = Present(**self._db.row(PRESENT[table]))
        return self._present[table]

    def _users(self, source: Source, look: int, limit: int) -> list[int]:
        if (source, look) not in self._changed:
            self._changed[source, look] = self._find_users(source, look, limit)
        return self._changed[source, look]

    def _find_users(self, source: Source, look: int, limit: int) -> list[int]:
        standing, present = self._standings[look, source.table], self._read(source.table)
        position = START_OF_TIME if present.position is None else present.position
        window = {"horizon": standing.horizon, "least": min(standing.least, position) - self._slack}
        # One short question for all that a table tells of: as a rule nothing has changed.
        if (source.table, look) not in self._has_changes:
            self._has_changes[source.table, look] = self._db.value(any_changed_row(source.table), **window)
        if not self._has_changes[source.table, look]:
            return []
        users: list[int] = self._db.value(changed_rows(source), **window, limit=limit + 1)
        return users

    def _is_trusted(self, look: int, table: str) -> bool:
        if look == self.number:
            return True
        standing = self._standings.get((look, table))
        return standing is not None and 0 <= self._read(table).next_xid - standing.horizon < TRUSTED_AGE

    def _has_moved(self, look: int, table: str) -> bool:
        standing, present = self._standings[look, table], self._read(table)
        return present.position != standing.position or present.horizon - standing.horizon > RENEWAL_AGE

    def _is_news(self, table: str) -> bool:
        latest, present = self._standings.get((self._latest, table)), self._read(table)
        return latest is None or (latest.horizon, latest.position) != (present.horizon, present.position)

    def _trim(self) -> None:
        """Delete the looks that no challenge needs; of many that are needed, merge each two into one."""
        oldest: dict[str, int] = {}
        crowded = set()
        for (_, table), standing in self._standings.items():
            oldest[table] = min(oldest.get(table, self.number), standing.oldest or 0)
            if standing.looks > MOST_LOOKS:
                crowded.add(table)
        self._db.rows(TRIM, sources=list(oldest), numbers=list(oldest.values()))
        for table in crowded:
            stood_at = [standing.number for (_, source), standing in self._standings.items() if source == table]
            self._db.rows(MERGE, source=table, oldest=oldest[table], stood_at=stood_at)
        self._is_trimmed = True


def _tables(sources: Sequence[Source]) -> list[str]:
    return sorted({source.table for source in sources})


_CLOCKED = tuple(table.name for table in TABLES.values() if table.clock)

STANDINGS = AnyPlan(f"""
    SELECT
        reached.number AS look,
        standing.source,
        standing.number,
        standing.horizon,
        standing.position,
        oldest.number AS oldest,
        needed.least,
        needed.looks
    FROM (
        SELECT unnest(:reached::bigint[]) AS number
        UNION
        SELECT max(look.number)
        FROM audius_challenges.look
    ) AS reached
    CROSS JOIN unnest(:tables::text[]) AS source (name)
    CROSS JOIN LATERAL (
        SELECT *
        FROM audius_challenges.look
        WHERE look.source = source.name
            AND look.number <= reached.number
        ORDER BY look.number DESC
        LIMIT 1
    ) AS standing
    LEFT JOIN LATERAL (
        SELECT look.number
        FROM audius_challenges.look
        WHERE look.source = standing.source
            AND look.number <= standing.number
            AND {_is_not_before("standing.horizon", "look.xmin::text::bigint")}
        ORDER BY look.number DESC
        LIMIT 1
    ) AS oldest
        ON TRUE
    CROSS JOIN LATERAL (
        SELECT
            min(coalesce(look.position, {START_OF_TIME})) AS least,
            count(*) AS looks
        FROM audius_challenges.look
        WHERE look.source = standing.source
            AND look.number >= coalesce(oldest.number, 0)
    ) AS needed
""")

SAVE = AnyPlan("""
    INSERT INTO audius_challenges.look (number, source, horizon, position)
    SELECT
        :number::bigint,
        seen.source,
        seen.horizon,
        seen.position
    FROM unnest(:sources::text[], :horizons::bigint[], :positions::bigint[]) AS seen (source, horizon, position)
    ON CONFLICT (source, number) DO NOTHING
""")

TRIM = """
    DELETE FROM audius_challenges.look
    USING unnest(:sources::text[], :numbers::bigint[]) AS needed (source, number)
    WHERE look.source = needed.source
        AND look.number < needed.number
"""

# Two looks at which nobody stands become the later one, with the lower position of both: windows only get wider.
MERGE = """
    WITH kept AS (
        SELECT
            look.number,
            look.position,
            row_number() OVER earlier_first AS place,
            lag(look.number) OVER earlier_first AS merged_number,
            lag(look.position) OVER earlier_first AS merged_position
        FROM audius_challenges.look
        WHERE look.source = :source::text
            AND look.number > :oldest::bigint
            AND look.number <> ALL(:stood_at::bigint[])
        WINDOW earlier_first AS (ORDER BY look.number)
    ),
    merged AS (
        DELETE FROM audius_challenges.look
        USING kept
        WHERE look.source = :source::text
            AND look.number = kept.merged_number
            AND kept.place % 2 = 0
    )
    UPDATE audius_challenges.look
    SET position = CASE
        WHEN kept.position IS NOT NULL AND kept.merged_position IS NOT NULL
            THEN least(kept.position, kept.merged_position)
    END
    FROM kept
    WHERE look.source = :source::text
        AND look.number = kept.number
        AND kept.place % 2 = 0
"""

_LATE_BLOCK = f"""
            SELECT blocks.number
            FROM discovery.blocks
            WHERE blocks.number IS NOT NULL
            ORDER BY blocks.number DESC
            LIMIT 1
            OFFSET {LATEST_BLOCKS}
"""

_LATE_PLAY = f"""
            SELECT late.id
            FROM (
                SELECT plays.id
                FROM discovery.plays
                ORDER BY plays.created_at DESC
                LIMIT {LATEST_PLAYS}
            ) AS late
            ORDER BY late.id
            LIMIT 1
            OFFSET {LOW_PLAYS}
"""


def _counts(table: str, row: str) -> str:
    """SQL that leaves those rows which have been checked, where they are."""
    checked = TABLES[table].checked
    return f" AND {row}.{checked}" if checked else ""


def present_of(table: str) -> str:
    """SQL of a source as it is now; its position is no higher than that of late blocks, or of late plays."""
    clock = f"{table}.{TABLES[table].clock}"
    limits = [clock, f"({_LATE_PLAY if table == 'plays' else _LATE_BLOCK})"]
    if TABLES[table].checked:
        limits.append(f"""(
            SELECT min(waiting.{TABLES[table].clock})
            FROM discovery.{table} AS waiting
            WHERE waiting.{TABLES[table].checked} IS NULL
                AND waiting.{TABLES[table].clock} >= coalesce(({_LATE_BLOCK}), 0) - {WAITING_BLOCKS}
        )""")
    return f"""
    SELECT
        pg_snapshot_xmin(snapshot)::text::bigint AS horizon,
        pg_snapshot_xmax(snapshot)::text::bigint AS next_xid,
        (
            SELECT least({", ".join(limits)})
            FROM discovery.{table}
            WHERE {clock} IS NOT NULL{_counts(table, table)}
            ORDER BY {clock} DESC
            LIMIT 1
            OFFSET {OUTLIERS}
        ) AS position
    FROM pg_current_snapshot() AS snapshot
"""


PRESENT = {table: present_of(table) for table in _CLOCKED}


def _rows_in_view(table: str) -> list[str]:
    """SQL of where rows are looked for: from a number on, and at the end of a table whose rows are checked."""
    by_number = f"changed.{TABLES[table].clock} >= :least::bigint"
    at_the_end = f"""changed.ctid >= (
                SELECT format('(%s,0)', greatest(pg_relation_size(there.tableoid) / block.size - {LAST_PAGES}, 0))::tid
                FROM discovery.{table} AS there
                CROSS JOIN (SELECT current_setting('block_size')::bigint AS size) AS block
                LIMIT 1
            )"""
    return [by_number, at_the_end] if TABLES[table].checked else [by_number]


def _is_changed(table: str, in_view: str) -> str:
    """SQL of whether a row there is a version of the horizon's or a later transaction, and counts."""
    return f"""{in_view}{_counts(table, "changed")}
                AND {_is_not_before("changed.xmin::text::bigint", ":horizon::bigint")}"""


@cache
def any_changed_row(table: str) -> str:
    """SQL of whether there is any row that `changed_rows` would go by."""
    changed = """
        UNION ALL""".join(
        f"""
        SELECT changed.xmin
        FROM discovery.{table} AS changed
        WHERE {_is_changed(table, in_view)}"""
        for in_view in _rows_in_view(table)
    )
    return f"""
    SELECT count(*) > 0 AS has_changed
    FROM ({changed}
        LIMIT 1
    ) AS any_row
"""


@cache
def changed_rows(source: Source) -> str:
    """SQL of the users affected by the row versions of a horizon and later transactions, from a number on."""
    affected = """
            UNION ALL""".join(
        f"""
            SELECT {source.user} AS user_id
            FROM discovery.{source.table} AS changed
            {source.join}
            WHERE {_is_changed(source.table, in_view)}"""
        for in_view in _rows_in_view(source.table)
    )
    return f"""
    SELECT ARRAY(
        SELECT DISTINCT affected.user_id
        FROM ({affected}
        ) AS affected
        WHERE affected.user_id IS NOT NULL
        LIMIT :limit::bigint
    ) AS users
"""
