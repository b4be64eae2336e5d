"""A shard leaves in the time that it is told, or in what it needs if that is less."""

import pytest

from reproq_supervisor.pool.farewell import Farewell


@pytest.mark.parametrize(
    ("message", "times"),
    [
        ({"type": "drain", "timeout": 3.0, "grace": 0.5, "within": 60.0}, (3.0, 0.5)),
        ({"type": "drain", "timeout": 3.0, "grace": 9.0, "within": 60.0}, (3.0, 2.0)),
        ({"type": "drain", "timeout": 3.0}, (3.0, 2.0)),
        ({"type": "quit", "grace": 0.2, "within": 60.0}, (0.0, 0.2)),
        ({"type": "quit"}, (0.0, 1.0)),
    ],
)
def test_tasks_get_what_the_order_says_and_no_more_than_their_own_grace(message: dict[str, object], times: tuple[float, float]) -> None:
    assert Farewell().order(message, 2.0) == times


def test_without_a_limit_there_is_time_enough() -> None:
    farewell = Farewell()
    farewell.order({"type": "drain", "timeout": 0.0}, 1.0)
    assert (farewell.flush_s, farewell.nursery_s) == (4.0, 5.0)


def test_the_time_until_the_kill_is_never_used_up() -> None:
    farewell = Farewell()
    farewell.order({"type": "drain", "timeout": 0.0, "within": 2.0}, 1.0)
    assert 0.0 <= farewell.flush_s <= 1.4
    farewell.order({"type": "drain", "timeout": 0.0, "within": 60.0}, 1.0)
    assert farewell.flush_s <= 1.4, "a later order gives nothing back"
    farewell.order({"type": "quit", "within": -1.0}, 1.0)
    assert (farewell.flush_s, farewell.nursery_s) == (0.0, 0.0)


def test_an_orphan_hurries() -> None:
    farewell = Farewell()
    farewell.orphaned = True
    assert (farewell.flush_s, farewell.nursery_s) == (1.0, 0.5)
