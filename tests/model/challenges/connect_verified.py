"""v, connect verified."""

from tests.model.rows import User
from tests.model.rules import StepsRule, Terms


class ConnectVerified(StepsRule):
    IDS = ("v",)

    def steps(self, person: User, terms: Terms) -> int:  # noqa: ARG002
        return person.is_verified
