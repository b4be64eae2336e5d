"""The store against the rules in plain Python, over random histories: whatever happens, both say the same.

Two transactions may stay open while others go on: a producer's, and that of a claimer, which ends or dies. ``REPROQ_MODEL_EXAMPLES`` sets
the number of histories: some here, 20,000 by ``make soak-model``, in parts, for as many processes as pytest has, each with its own server.
A part that fails says its seed: ``REPROQ_MODEL_SEED`` with that number, and as many examples as a part has, tells the same histories.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from reproq_supervisor.store.migrate import migrate
from tests.store.model.operating import Operating
from tests.store.model.producing import Producing
from tests.store.model.world import World
from tests.support.postgres import Cluster

EXAMPLES = int(os.environ.get("REPROQ_MODEL_EXAMPLES", "100"))
SEED = int(os.environ.get("REPROQ_MODEL_SEED", "0"))
PART, STEPS = 100, 40
# Where no seed is given, each run draws its own.
PARTS = [SEED + n if SEED else None for n in range(max(1, EXAMPLES // PART))]


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    with cluster.new_database(cluster.ensure_template(migrate)) as database:
        world = World(database)
        try:
            yield world
        finally:
            world.close()


class Everybody(Producing, Operating):
    """All that may happen."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", PARTS)
def test_the_store_does_what_the_rules_say(world: World, part: int | None) -> None:
    Everybody.world = world
    run_state_machine_as_test(
        Everybody if part is None else seed(part)(Everybody),
        settings=settings(
            max_examples=min(EXAMPLES, PART),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[phase for phase in Phase if phase is not Phase.explain],
        ),
    )
