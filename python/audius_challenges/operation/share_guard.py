"""The guard of a node: why it must not derive anything at the moment, asked in each transaction of a tick."""

from __future__ import annotations

from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine.shares import Plan
from audius_challenges.settings import Settings

_ADOPTED = AnyPlan("""
    SELECT
        share,
        epoch
    FROM audius_challenges.share_sent
""")


def why_not(db: Database, settings: Settings, plan: Plan | None) -> list[str]:
    """Why this node does nothing, each reason in a text for people; nothing: it may work.

    :param plan: as it has arrived here; None: none has
    """
    reasons = []
    share = settings.share
    if share is None:
        reasons.append("audius_challenges.share is not set, though audius_challenges.share_plan is subscribed to")
    if plan is None:
        return [*reasons, "no plan of shares has arrived"]
    if not plan.shares:
        return [*reasons, "the plan has no shares: the primary does everything"]
    if share is not None and share.of != plan.shares:
        reasons.append(f"the plan is of {plan.shares} shares, this node is {share}")
    adopted = next(iter(db.rows(_ADOPTED)), {"share": None, "epoch": None})
    if adopted["epoch"] != plan.epoch:
        reasons.append(
            f"the user challenges of epoch {plan.epoch} have not been adopted (adopted: {adopted['epoch'] or 'none'})"
        )
    elif share is not None and adopted["share"] != str(share):
        reasons.append(f"the user challenges of share {adopted['share']} have been adopted, this node is {share}")
    return reasons
