"""The supervisor's real core in a simulated world, under thousands of random scripts.

Replay one: `REPROQ_SIM_SEED=4711 pytest tests/sim -k random`. More of them: `REPROQ_SIM_SCRIPTS=20000`.
"""

import os

import pytest

from tests.sim.script import Script

SCRIPTS = int(os.environ.get("REPROQ_SIM_SCRIPTS", "2000"))
BATCHES = 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_scripts_keep_every_invariant(batch: int) -> None:
    seed = os.environ.get("REPROQ_SIM_SEED")
    seeds = [int(seed)] if seed is not None else range(batch, SCRIPTS, BATCHES)
    for each in seeds:
        try:
            Script(each).play()
        except Exception as error:
            raise AssertionError(f"seed {each}: {type(error).__name__}: {error}") from error
