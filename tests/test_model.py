"""Whatever happens to the sources, the database's derived tables hold what the model of the rules says.

Hypothesis invents histories: what indexers, people and repairs do to the source tables, with runs in between.
Where there are three workers, every run goes slice by slice, and two helpers work beside it.
After each run the derived tables must equal the model's, the run's report must tell what it wrote, and the
same run again must change nothing, not even a tuple version.

    AUDIUS_CHALLENGES_MODEL_HISTORIES=2000 pytest tests/test_model.py     more of them
    AUDIUS_CHALLENGES_MODEL_SEED=4711 pytest tests/test_model.py          the histories from this seed on

With CI set, the histories are the same every time. Otherwise they are new, and a failure prints the seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from devtools.cluster import Cluster
from tests.model.database import Database, one_database
from tests.model.strategies import History, histories
from tests.model.world import World

HISTORIES = int(os.environ.get("AUDIUS_CHALLENGES_MODEL_HISTORIES", "150"))
SEED = os.environ.get("AUDIUS_CHALLENGES_MODEL_SEED") or ("1" if os.environ.get("CI") else "")

# Hypothesis tries the simplest example, then one at random, and then variations of that one; here a new one is worth
# more. So each history is a search of its own, with a seed of its own.
ONE_HISTORY = settings(
    max_examples=2,
    deadline=None,
    database=None,
    derandomize=False,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(params=[1, 3], ids=["one worker", "three workers"])
def database(cluster: Cluster, full_template: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    with one_database(cluster, full_template, request.param) as database:
        yield database


def test_the_database_follows_the_model_through_any_history(database: Database) -> None:
    def follow(history: History) -> None:
        if not any(chapter.events for chapter in history.chapters):
            return
        world = World(database, history.environment, history.timezone)
        for person in history.people:
            person.happen(world)
        for chapter in history.chapters:
            for event in chapter.events:
                event.happen(world)
                world.mirror()
            world.reconcile(chapter.run)
        assert database.differences(world.sources) == []

    first = int(SEED) if SEED else random.SystemRandom().randrange(2**32)
    for number in range(first, first + HISTORIES):
        try:
            seed(number)(ONE_HISTORY(given(histories)(follow)))()
        except BaseException:
            print(f"again: AUDIUS_CHALLENGES_MODEL_SEED={number} AUDIUS_CHALLENGES_MODEL_HISTORIES=1")
            raise
