"""A challenge that is one query over the users who count: everything that it has to say, and nothing else.

The query returns a row for each reward that there is or is on its way to be. First build, changes, sweep, finality,
limits, catalog and errors are the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from audius_challenges.annotations import Any, Protocol
from audius_challenges.catalog import Challenge
from audius_challenges.engine.deeds import is_known, is_set_aside, passing_over, records
from audius_challenges.engine.explanation import (
    Answer,
    Asked,
    Condition,
    Prospect,
    Said,
    at_least_one,
    conditions_of,
    prospects_of,
    too_great,
)
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Work
from audius_challenges.engine.set_aside import EVERYTHING, may_be_one_users
from audius_challenges.engine.users import (
    USER_ID,
    Key,
    Users,
    account,
    eligible_users,
    is_one_of_the_deeds,
    join_of_eligible,
)
from audius_challenges.engine.writing import WRITES, prospects, writing
from audius_challenges.errors import describe
from audius_challenges.settings import MAX_INTEGER
from audius_challenges.sources import USERS, Reads, Source, columns_read, merged

STEP_COUNT = "step_count"
"""`completes_at` of a challenge that takes as many steps as the catalog says."""


class Terms(Protocol):
    """What a rule goes by: a run's work, or a question."""

    @property
    def challenge(self) -> Challenge:
        """The catalog row."""

    @property
    def as_of(self) -> str:
        """The clock."""


@dataclass(frozen=True, kw_only=True)
class Rule(PerUser):
    """A challenge whose user challenges follow from rows that lead to a user.

    SQL writes `discovery.tracks` for a table, and qualifies every column; :starting_block::bigint, :target::bigint,
    :as_of::timestamptz and :amount::integer are there to be used.

    :ivar id: the challenge id
    :ivar description: what it rewards, in a few words
    :ivar found: SQL of a query over `eligible`, the users to examine who count and take part: a row for each reward
        that there is or is on its way to be: user_id, steps, and what `specifier` and `amount` ask for
    :ivar changes: the sources whose changed rows affect users; the user's own row always does
    :ivar by_user: the source that the user's own row is; another one of `users` if rows there affect others, too
    :ivar is_deed: whether each row that is found is a reward of its own. Otherwise there is one for each user, and who
        is not found has 0 steps
    :ivar specifier: SQL over `found` of what makes a reward unique (rule 12); without `is_deed` over user_id alone
    :ivar amount: SQL over `found` of the amount in whole $AUDIO
    :ivar completes_at: how many steps are enough, or STEP_COUNT
    :ivar takes_part: SQL over `eligible` of who can have steps at all; others do not move, not even down
    :ivar after: id of the challenge that a user must have completed before this one begins; who has, and has no row of
        this one yet, is examined at every run
    :ivar due_users: SQL of the ids of users to examine at every run, for what leaves no trace in a source; :as_of is
        there to be used
    :ivar round_users: SQL of the ids of users to examine whenever the sweep has come round, in place of its slices
    :ivar is_capped: whether the catalog's step_count is how many rewards there are at most: :cap::bigint is that
    :ivar created_at: SQL over `found` of the time of a deed, timestamptz
    :ivar earlier: SQL over `found` of an array of the specifiers that a deed had in earlier formats
    :ivar paid_as: ids of other challenges that may have paid the same deed, under the same specifier
    :ivar every_deed: SQL of the specifiers of all deeds that the source rows tell of, whoever counts and whatever the
        catalog says: `start_from_now` passes over these
    :ivar key: what is examined, if not users: rows of a source, each by itself. Then `found` is a query over these
        (`is_one_of_the_rows`), without `eligible`; `changes` lead to keys; and rewards are deeds that take one step
    :ivar is_of_earner: whether the users to examine are those who earn; otherwise `found` looks after them, and the
        users are, say, those for whom a cap holds
    :ivar also_writes: a further common table expression that writes what is found to a table of its own
    :ivar conditions: what it demands of a user, for who asks why; if empty, the steps or deeds that are found
    :ivar facts: SQL of the one row `fact` that conditions go by, over `eligible`, `found` and :user_id::bigint
    :ivar examined: SQL of the ids to examine for what a user earns: :user_id::bigint is he
    :ivar own_deeds: SQL of the specifiers of `every_deed` that are of the user :user_id::bigint
    :ivar paid_otherwise: SQL of the table (record) that says that the user :user_id::bigint was paid already, whatever
        the specifier
    :ivar uncapped: `found` without the caps that it has in it
    :ivar awaits: whether `after` has to be complete already; where not, the run that is told of will complete it
    """

    id: str
    description: str
    found: str
    changes: tuple[Source, ...] = ()
    by_user: Source = USERS
    is_deed: bool = False
    specifier: str = "to_hex(found.user_id)"
    amount: str = ":amount::integer"
    completes_at: int | str = 1
    takes_part: str = "TRUE"
    after: str | None = None
    due_users: str | None = None
    round_users: str | None = None
    is_capped: bool = False
    created_at: str = ":as_of::timestamptz"
    earlier: str = "'{}'::text[]"
    paid_as: tuple[str, ...] = ()
    every_deed: str | None = None
    key: Key = USER_ID
    is_of_earner: bool = True
    also_writes: str | None = None
    conditions: tuple[Condition, ...] = ()
    facts: str | None = None
    examined: str | None = None
    own_deeds: str | None = None
    paid_otherwise: str | None = None
    awaits: bool = True
    uncapped: str | None = None

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The user's own row, and what the rule adds."""
        return (self.by_user, *self.changes) if self.key == USER_ID else self.changes

    @cached_property
    def is_split(self) -> bool:
        """Whether there is one reward a user, which follows from his own rows and those that he has already."""
        return self.key == USER_ID and not self.is_deed and not self.is_capped and not self.round_users

    @cached_property
    def without_past(self) -> str | None:
        """Passing over the deeds that are there; or a starting block, where the rule goes by it."""
        if self.every_deed:
            return f"SELECT * FROM audius_challenges.start_from_now('{{{self.id}}}');"
        return "give it a starting_block of the present." if ":starting_block" in self.found else None

    @cached_property
    def due(self) -> str | None:
        """Who the rule says is due; and who has completed the challenge before, but has no row of this one yet."""
        return " UNION ".join(filter(None, (self.due_users, self.after and self._freed))) or None

    @cached_property
    def reads(self) -> Reads:
        """Everything that reconciling needs."""
        own = columns_read(self._wanted, self._unless, self.every_deed or "", eligible="users")
        return merged(
            [
                WRITES,
                own,
                self.key.reads,
                *(source.reads for source in self.sources),
                columns_read(self.due_users or "", self.round_users or "", (self.after and self._freed) or ""),
            ]
        )

    @cached_property
    def statements(self) -> Mapping[str, str]:
        """The write, who is due, and what can be set aside singly."""
        return {
            **({"slice": self.key.slice, "progress": self.key.progress} if self.key != USER_ID else {}),
            "write": writing(self._wanted, unless=self._unless, at_once=self._at_once),
            **({"due": self.due} if self.due else {}),
            **({"round": self.round_users} if self.round_users else {}),
            **({"deeds": self._specifiers} if self.is_deed else {}),
            **({"pass over": passing_over(self.every_deed)} if self.every_deed else {}),
        }

    def run(self, work: Work) -> None:
        """Examine whose turn it is.

        :raises ChallengeError: if the catalog has no step_count to complete at, whoever is examined
        """
        self._target(work)
        self._cap(work)
        super().run(work)

    def reconcile(self, work: Work, users: Users, *, nothing_written: bool) -> None:
        """Write what is found of these users."""
        work.write(
            self._wanted,
            unless=self._unless,
            at_once=self._at_once,
            nothing_written=nothing_written,
            **self._parameters(work, users),
        )

    def pass_over(self, work: Work) -> int | None:
        """The deeds that the rule knows."""
        if not self.every_deed:
            return None
        passed: int = work.db.value(passing_over(self.every_deed), challenge_id=self.id)
        return passed

    def deeds(self, work: Work, users: Users) -> dict[str, int]:
        """The specifiers of what is found, and of incomplete rows, if there is more than one step; and who earns it."""
        if not self.is_deed:
            return {}
        found = work.db.rows(
            self._specifiers, challenge_id=self.id, nothing_written=False, **self._parameters(work, users)
        )
        return {row["specifier"]: row["user_id"] for row in found}

    def explain(self, asked: Asked) -> Answer:
        """The conditions, and what the next run that examines the user writes, by the SQL of runs."""
        return self.as_next_run_finds_it(asked).answer(asked)

    def as_next_run_finds_it(self, asked: Asked) -> Rule:
        """The same rule, where what comes before it in the run may have changed what it goes by."""
        return replace(self, awaits=False) if self.after in asked.completed else self

    @cached_property
    def without_cap(self) -> Rule:
        """The same rule, if nothing were capped but by the catalog."""
        return replace(self, found=self.uncapped) if self.uncapped else self

    def answer(self, asked: Asked) -> Answer:
        """What the rule says as it stands."""
        db, users = asked.db, Users.listed([asked.user_id])
        whom = {"user_id": asked.user_id, "challenge_id": self.id, "nothing_written": False}
        parameters = {**self._parameters(asked, users), **whom}
        if self.examined:
            users = Users.listed([row["id"] for row in db.rows(self.examined, **parameters)])
            parameters |= users.parameters
        answer = Answer(target=self._target(asked), examined=users.ids or [])
        self._say(asked, answer, db.rows(self._said, **parameters))
        answer.prospects = self.prospects(asked, answer, users, parameters)
        if self.is_capped or self.uncapped:
            known = {one.specifier for one in answer.prospects}
            uncapped = self.without_cap.prospects(asked, answer, users, {**parameters, "cap": MAX_INTEGER})
            answer.capped = [one for one in uncapped if one.specifier not in known and one.is_to_be_written]
        answer.failures.update(too_great(asked, answer.prospects))
        if self.is_deed:
            answer.refused = self._refused(asked, answer)
        return answer

    def _say(self, asked: Asked, answer: Answer, rows: list[dict[str, Any]]) -> None:
        terms = {"target": answer.target, "cap": self._cap(asked), "starting_block": asked.challenge.starting_block}
        for row in rows:
            condition = self._demands[row["number"]]
            demanded = condition.demanded.format_map(terms)
            answer.said.append(Said(condition.what, demanded, row["has"], row["holds"], row["since"]))
            answer.takes_part = row["takes_part"]
        if self.after and rows:
            since, is_complete = rows[0]["completed_at"], rows[0]["has_completed"]
            comes = self.after in asked.completed
            has = "complete" if is_complete else "complete with the next run" if comes else "not complete"
            answer.said.insert(0, Said(f"challenge {self.after}", "complete", has, is_complete or comes, since))
            answer.waits_for = None if is_complete or comes else f"challenge {self.after} is not complete"

    def prospects(self, asked: Asked, answer: Answer, users: Users, parameters: Mapping[str, Any]) -> list[Prospect]:
        """What is wanted; if that fails for one deed, the others, as a run would write them."""
        db = asked.db
        try:
            with db.plpy.subtransaction():
                return prospects_of(db.rows(self._prospect, **parameters), asked.user_id)
        except Exception as error:
            if not may_be_one_users(db, error):
                raise
            failure = describe(error)
        try:
            with db.plpy.subtransaction():
                found = db.rows(self._specifiers, **parameters) if self.is_deed and users.deeds is None else []
        except Exception as error:
            if not may_be_one_users(db, error):
                raise
            found = []
        deeds = [row["specifier"] for row in found if row["user_id"] == asked.user_id]
        if not deeds:
            answer.failures[users.deeds[0] if users.deeds else EVERYTHING] = failure
        each = (replace(users, deeds=[deed]) for deed in deeds)
        return [
            prospect
            for deed in each
            for prospect in self.prospects(asked, answer, deed, {**parameters, **deed.parameters})
        ]

    def _refused(self, asked: Asked, answer: Answer) -> dict[str, str]:
        """The deeds that are known from a record, among those that are wanted and all others that the sources have."""
        pairs = [
            (one.specifier, known_as)
            for one in (*answer.prospects, *answer.capped)
            for known_as in (one.specifier, *one.earlier)
        ]
        whom = {"user_id": asked.user_id}
        refused = {}
        if self.paid_otherwise and self.own_deeds and (paid := asked.db.rows(self.paid_otherwise, **whom)):
            deeds = asked.db.rows(self.own_deeds, **whom)
            refused = {deed["specifier"]: paid[0]["record"] for deed in deeds if deed["specifier"] is not None}
        found = asked.db.rows(
            self._records,
            **whom,
            specifiers=[specifier for specifier, _ in pairs],
            known_as=[known_as for _, known_as in pairs],
        )
        for row in found:
            refused.setdefault(row["specifier"], row["record"])
        return refused

    def _parameters(self, work: Terms, users: Users) -> dict[str, Any]:
        return {
            **users.parameters,
            "target": self._target(work),
            "cap": self._cap(work),
            "amount": work.challenge.amount,
            "as_of": work.as_of,
            "starting_block": work.challenge.starting_block,
        }

    def _target(self, work: Terms) -> int:
        return work.challenge.target if self.completes_at == STEP_COUNT else int(self.completes_at)

    def _cap(self, work: Terms) -> int | None:
        return work.challenge.target if self.is_capped else None

    @cached_property
    def _wanted(self) -> str:
        return self._wanted_and(self.also_writes)

    def _wanted_and(self, also_writes: str | None) -> str:
        return f"""
        {self._found},
        {also_writes + "," if also_writes else ""}
        rewards AS (
            {self._deeds if self.is_deed else self._one_for_each_user}
        ),
        wanted AS (
            SELECT
                rewards.user_id,
                rewards.specifier,
                least(greatest(rewards.steps, 0), :target::bigint)::bigint AS current_step_count,
                rewards.steps >= :target::bigint AS is_complete,
                rewards.amount,
                :as_of::timestamptz AT TIME ZONE 'UTC' AS completed_at,
                {"rewards.created_at, rewards.earlier" if self.is_deed else ":as_of::timestamptz AS created_at"}
            FROM rewards
        )
        """

    @cached_property
    def _prospect(self) -> str:
        """SQL of what a run would write."""
        earlier = "wanted.earlier" if self.is_deed else "'{}'::text[]"
        return prospects(self._wanted_and(None), unless=self._unless, at_once=self._at_once, earlier=earlier)

    @cached_property
    def _demands(self) -> tuple[Condition, ...]:
        """The conditions, or what can be said of any rule."""
        if self.conditions:
            return self.conditions
        if self.is_deed:
            return (at_least_one(self.description, "one", "fact.deeds"),)
        steps = "coalesce(fact.steps, 0)"
        return (Condition(self.description, "{target}", has=steps, holds=f"{steps} >= :target::bigint"),)

    @cached_property
    def _said(self) -> str:
        """SQL of what the user has of what the conditions demand, whether he counts or not."""
        said = conditions_of(self._demands)
        deeds = "SELECT count(*) FILTER (WHERE found.steps >= :target::bigint) AS deeds FROM found"
        found = deeds if self.is_deed else "SELECT found.* FROM found"
        facts = (self.facts if self.conditions else None) or found
        before = "completed.completed_at AT TIME ZONE 'UTC'"
        return f"""
    WITH {eligible_users(self.found, facts, whoever=True)},
        found AS MATERIALIZED (
            {self.found}
        ),
        fact AS MATERIALIZED (
            {facts}
        ),
        {account(said, self.takes_part)}
        SELECT
            said.number,
            said.has,
            said.holds,
            said.since,
            coalesce({"TRUE" if self.examined else self.takes_part}, FALSE) AS takes_part,
            completed.specifier IS NOT NULL AS has_completed,
            {before} AS completed_at
        FROM account AS eligible
        LEFT JOIN fact
            ON TRUE
        LEFT JOIN LATERAL (
            SELECT
                before.specifier,
                before.completed_at
            FROM discovery.user_challenges AS before
            WHERE before.user_id = eligible.user_id
                AND before.challenge_id::text = '{self.after or ""}'
                AND before.is_complete
            LIMIT 1
        ) AS completed
            ON TRUE
        CROSS JOIN LATERAL {said}
        ORDER BY said.number
    """

    @cached_property
    def _records(self) -> str:
        """SQL of which deeds are known from where."""
        own = f"""
            SELECT
                own.specifier,
                own.specifier
            FROM ({self.own_deeds}) AS own
            UNION ALL
            """
        deeds = f"""{own if self.own_deeds else ""}
            SELECT
                wanted.specifier,
                wanted.known_as
            FROM unnest(:specifiers::text[], :known_as::text[]) AS wanted (specifier, known_as)
        """
        return records((self.id, *self.paid_as), f"SELECT * FROM ({deeds}) AS either (specifier, known_as)")

    @property
    def _found(self) -> str:
        if self.key != USER_ID:
            return self._found_incomplete
        found = f"""
        found AS MATERIALIZED (
            {self.found}
        )"""
        if self._is_found_first and not self.is_of_earner:
            return found
        if self._is_found_first:
            # Where deeds are found without a look at who counts, only who is found is looked at.
            among = "users.user_id IN (SELECT found.user_id FROM found)"
            return f"{found},{eligible_users(takes_part=self._takes_part, among=among)}"
        return f"{eligible_users(self.found, takes_part=self._takes_part)},{found}"

    @property
    def _is_found_first(self) -> bool:
        return self.is_deed and self.completes_at == 1 and "eligible" not in self.found

    @property
    def _found_incomplete(self) -> str:
        """Of rows of a source, as a rule nearly all are rewarded: nobody is looked up for these."""
        return f"""
        found AS MATERIALIZED (
            SELECT found.*
            FROM (
                {self.found}
            ) AS found
            WHERE (
                SELECT TRUE
                FROM discovery.user_challenges AS complete
                WHERE NOT :nothing_written::boolean
                    AND complete.challenge_id::text = (SELECT :challenge_id::text)
                    AND complete.specifier::text = {self.specifier}
                    AND complete.is_complete
                LIMIT 1
            ) IS NOT TRUE
        )"""

    @property
    def _one_for_each_user(self) -> str:
        return f"""
            SELECT
                found.user_id,
                {self.specifier} AS specifier,
                found.steps,
                {self.amount} AS amount
            FROM (
                SELECT
                    eligible.user_id,
                    coalesce(found.steps, 0) AS steps
                FROM eligible
                LEFT JOIN found
                    ON eligible.user_id = found.user_id
            ) AS found"""

    @property
    def _deeds(self) -> str:
        """What is found, each reward once; and incomplete rows of what is not there any more (rule 3)."""
        gone = f"""
            UNION ALL
            SELECT
                gone.user_id,
                gone.specifier::text,
                0,
                gone.amount,
                gone.created_at,
                '{{}}'::text[]
            FROM eligible
            INNER JOIN discovery.user_challenges AS gone
                ON eligible.user_id = gone.user_id
            WHERE gone.challenge_id::text = (SELECT :challenge_id::text)
                AND gone.is_complete IS NOT TRUE
                AND {is_one_of_the_deeds("gone.specifier::text")}
                AND gone.specifier::text NOT IN (SELECT deeds.specifier FROM deeds)"""
        return f"""
            WITH deeds AS (
                SELECT DISTINCT ON (deed.specifier) deed.*
                FROM (
                    SELECT
                        found.user_id,
                        {self.specifier} AS specifier,
                        found.steps,
                        {self.amount} AS amount,
                        {self.created_at} AS created_at,
                        {self.earlier} AS earlier
                    FROM found
                    {self._of_earner}
                    WHERE {is_one_of_the_deeds(self.specifier)}
                ) AS deed
                ORDER BY
                    deed.specifier ASC,
                    deed.steps DESC,
                    deed.amount DESC,
                    deed.user_id ASC
            )
            SELECT deeds.*
            FROM deeds
            {"" if self.completes_at == 1 else gone}"""

    @cached_property
    def _specifiers(self) -> str:
        """SQL of what can be set aside singly: nothing is asked of a deed here but its specifier."""
        return f"""
        WITH {self._found}
        SELECT
            {self.specifier} AS specifier,
            found.user_id
        FROM found
        {self._of_earner}
        {"" if self.completes_at == 1 else self._incomplete}
        ORDER BY specifier
        """

    @property
    def _incomplete(self) -> str:
        return """
        UNION
        SELECT
            user_challenges.specifier::text,
            user_challenges.user_id
        FROM discovery.user_challenges
        INNER JOIN eligible
            ON user_challenges.user_id = eligible.user_id
        WHERE user_challenges.challenge_id::text = (SELECT :challenge_id::text)
            AND user_challenges.is_complete IS NOT TRUE"""

    @property
    def _of_earner(self) -> str:
        if self.key != USER_ID:
            return join_of_eligible(self._takes_part)
        return "INNER JOIN eligible ON found.user_id = eligible.user_id" if self.is_of_earner else ""

    @property
    def _unless(self) -> str:
        if not self.is_deed:
            return "FALSE"
        return is_known((self.id, *self.paid_as), "wanted.specifier || wanted.earlier")

    @property
    def _at_once(self) -> bool:
        """Whether a row that is there is left alone: to a deed of one step it says that it was paid before."""
        return self.is_deed and self.completes_at == 1

    @property
    def _takes_part(self) -> str:
        return f"({self.takes_part}){self._has_completed_before}"

    @property
    def _has_completed_before(self) -> str:
        if not self.after or not self.awaits:
            return ""
        return f"""
            AND EXISTS (
                SELECT FROM discovery.user_challenges AS before
                WHERE before.user_id = eligible.user_id
                    AND before.challenge_id::text = '{self.after}'
                    AND before.is_complete
            )"""

    @property
    def _freed(self) -> str:
        own = "own.user_id = found.user_id" if self.is_deed else f"own.specifier::text = {self.specifier}"
        return f"""
    SELECT found.user_id
    FROM discovery.user_challenges AS found
    WHERE found.challenge_id::text = '{self.after}'
        AND found.is_complete
        AND NOT EXISTS (
            SELECT FROM discovery.user_challenges AS own
            WHERE own.challenge_id::text = (SELECT '{self.id}')
                AND {own}
        )
        AND NOT {is_set_aside(self.id, "found.user_id")}
    """
