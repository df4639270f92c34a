"""Shares: the plan of who derives what, and what this server is by it.

Nodes, each with its share of the users, derive some of the challenges and send the rows to the primary, by PostgreSQL's
logical replication. One plan decides, a row that the primary publishes together with the sources: so a node knows of a
new plan in the order of the data. No plan, and nothing is different from a single server.
"""

from __future__ import annotations

from dataclasses import dataclass

from audius_challenges.database import AnyPlan, Database
from audius_challenges.settings import PREFIX, Settings, Share

SHARED = ("u", "fp", "p", "v", "e")
"""The challenges that nodes derive: what earns them is of their user alone, and replicated by its id."""

MOST_SHARES = 1000
"""What a name of a slot has room for, and more than anybody has servers."""

RETURN = "audius_challenges_return"
"""The publication on a node: what it sends home."""

BEAT = "beat"
"""In place of a table's name, in `share_batch.relation`: a tick of the node has ended."""

RESEND, REPLAN, REJOIN = "resend", "plan", "join"
"""What makes good what is wrong with a node, in `share_node.mended_by`: all sent again, another plan, another node."""

USER_CHALLENGES, COMPLETIONS, STREAKS = "user_challenges", "challenge_profile_completion", "challenge_listen_streak"
"""The tables that nodes write."""

ROLE = """
        plan.epoch,
        plan.shares,
        plan.challenges,
        plan.lsn::text AS lsn,
        EXISTS (
            SELECT FROM pg_subscription_rel AS subscribed
            WHERE subscribed.srrelid = 'audius_challenges.share_plan'::regclass
        ) AS is_fed"""
"""SQL of what this server is, but for the setting, over `plan`, a row of `share_plan` or none: see `role_of`."""

_READ = AnyPlan(f"""
    SELECT{ROLE}
    FROM (SELECT true) AS always
    LEFT JOIN audius_challenges.share_plan AS plan
        ON true
""")


@dataclass(frozen=True)
class Plan:
    """A row of `share_plan`.

    :ivar epoch: its number
    :ivar shares: how many nodes there are; 0: none any more
    :ivar challenges: what they derive
    :ivar lsn: where the WAL of the primary was when it was decided
    """

    epoch: int
    shares: int
    challenges: tuple[str, ...]
    lsn: str

    @property
    def names(self) -> list[str]:
        """The shares of all nodes, such as 0/2."""
        return [str(Share(number, self.shares)) for number in range(self.shares)]


@dataclass(frozen=True)
class Problem:
    """Why the primary does not write what a node sends.

    :ivar text: what is wrong
    :ivar mended_by: RESEND, REPLAN or REJOIN
    """

    text: str
    mended_by: str


@dataclass(frozen=True)
class Role:
    """What this server is.

    :ivar share: the share that is set here, if any is
    :ivar plan: the plan, if there is one
    :ivar is_fed: whether the plan comes by a subscription
    """

    share: Share | None = None
    plan: Plan | None = None
    is_fed: bool = False

    def by(self, settings: Settings) -> Role:
        """The same, by the setting."""
        return Role(settings.share, self.plan, self.is_fed)

    @property
    def is_node(self) -> bool:
        """Whether it derives a share of the users and sends that home."""
        return self.share is not None or self.is_fed

    @property
    def is_hub(self) -> bool:
        """Whether it writes what nodes have derived."""
        return not self.is_node and self.plan is not None and self.plan.shares > 0

    def is_elsewhere(self, challenge_id: str) -> bool:
        """Whether the challenge is done by the primary, and this is a node."""
        return self.is_node and not (self.plan and challenge_id in self.plan.challenges)

    def is_absorbed(self, challenge_id: str) -> bool:
        """Whether nodes derive the challenge, and this is the primary."""
        return self.is_hub and self.plan is not None and challenge_id in self.plan.challenges


def read_role(db: Database, settings: Settings) -> Role:
    """What this server is, by the setting `share`, the plan and subscriptions."""
    return role_of(**db.row(_READ)).by(settings)


def role_of(
    *, epoch: int | None, shares: int | None, challenges: list[str] | None, lsn: str | None, is_fed: bool
) -> Role:
    """What this server is, but for the setting, by a row of `ROLE`."""
    if epoch is None or shares is None:
        return Role(is_fed=is_fed)
    return Role(plan=Plan(epoch, shares, tuple(challenges or ()), lsn or ""), is_fed=is_fed)


def how_to_mend(share: str, mended_by: str | None) -> str:
    """What a person is to do about a problem of a share, in a hint."""
    *_, shares = share.split("/")
    plan = f"SELECT audius_challenges.plan_shares({shares});"
    if mended_by == REPLAN:
        return f"{plan} on the primary has all nodes adopt anew."
    if mended_by == REJOIN:
        return (
            f"Set the node whose {PREFIX}share is {share} up anew: there SELECT audius_challenges.drop_shares()"
            f" \\gexec, empty its tables, and join again. Then {plan} on the primary has all nodes adopt anew."
        )
    return f"On the node whose {PREFIX}share is {share}: SELECT audius_challenges.resend();"


def share_publication(share: Share) -> str:
    """The publication of a share's sources on the primary; so are called the subscription and its slot."""
    return _name("share", share)


def plays_publication(share: Share) -> str:
    """That of plays, of which only new ones are sent."""
    return f"{share_publication(share)}_plays"


def adopt_publication(share: Share) -> str:
    """That of the rows which a node adopts before it begins."""
    return f"{share_publication(share)}_adopt"


def adopt_subscription(share: Share, epoch: int) -> str:
    """The subscription by which a node adopts them: made after the plan of this epoch has arrived, so what it copies is
    what there was when that was decided, or later.
    """
    return f"{_name('adopt', share)}_epoch_{epoch}"


def return_subscription(share: Share) -> str:
    """The subscription on the primary by which rows come home; so is called its slot on the node."""
    return _name("return", share)


def _name(what: str, share: Share) -> str:
    return f"audius_challenges_{what}_{share.number}_of_{share.of}"
