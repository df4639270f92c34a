"""The rewards, from their specification, in plain Python: what the derived tables hold after each run.

No SQL and no change detection: a run looks at every row there is. Each file in `challenges/` is the model of a
challenge, or of a family of them, and is found there by itself. A challenge without a model is not compared.

    model = Model()
    model.sources.challenges.put(Challenge("u", "numeric", "1", True, 3, 25346436, 25000, 7))
    model.sources.users.put(User(255))
    model.sources.tracks.put(Track(1, owner_id=255, blocknumber=25346436))
    model.reconcile(datetime(2025, 11, 5, tzinfo=UTC))
    model.user_challenges["u", "ff"].current_step_count  # 1

rows        the tables: source rows, derived rows
rules       what holds for every challenge
challenges  what holds for one of them
database    the database under test: takes the model's source rows, runs, gives derived rows back
world       both side by side
events      what happens to the sources
strategies  histories of events, by Hypothesis
"""

from importlib import import_module
from pkgutil import iter_modules

from tests.model import challenges
from tests.model.rows import Challenge, Play, Track, User, UserChallenge
from tests.model.rules import MODELS, Model
from tests.sessions import RUN_ORDER

__all__ = ["MODELLED", "Challenge", "Model", "Play", "Track", "User", "UserChallenge"]

for _module in iter_modules(challenges.__path__):
    import_module(f"{challenges.__name__}.{_module.name}")

MODELLED = tuple(challenge for challenge in RUN_ORDER if challenge in MODELS)
"""The challenges that have a model, in run order."""
