"""When the keeper looks again for what is due."""

import math

import pytest

from reproq_supervisor.keeper.duties import LOCKED_S, wake_again_in_s
from reproq_supervisor.store.keeper import Woken


@pytest.mark.parametrize(
    ("woken", "again_in_s"),
    [
        (Woken(0, None), math.inf),
        (Woken(7, None), math.inf),
        (Woken(0, 0.003), 0.003),
        (Woken(500, 0.0), 0.0),
        (Woken(1, 0.0), 0.0),
    ],
)
def test_it_looks_when_the_next_one_is_due(woken: Woken, again_in_s: float) -> None:
    assert wake_again_in_s(woken) == again_in_s


def test_what_is_due_and_locked_is_not_looked_at_without_a_rest() -> None:
    assert 0 < wake_again_in_s(Woken(0, 0.0)) == LOCKED_S < 0.1
