"""The challenges that there are, and what each of them has to have here."""

from tests.model.rules import MODELS
from tests.sessions import RUN_ORDER


def test_every_challenge_has_a_model() -> None:
    """It is a file in tests/model/challenges/."""
    assert [challenge for challenge in RUN_ORDER if challenge not in MODELS] == []


def test_every_model_is_of_a_challenge() -> None:
    assert [challenge for challenge in MODELS if challenge not in RUN_ORDER] == []
