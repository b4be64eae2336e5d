"""The delay before the next attempt."""

import pytest

from reproq_supervisor.core.policy.retry import RetryPolicy

PLAIN = RetryPolicy(base_s=30, cap_s=3600, jitter=0)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (9, 3600), (10**9, 3600)])
def test_the_delay_doubles_up_to_its_cap(attempt: int, delay: float) -> None:
    assert PLAIN.delay_s(attempt, 0.5) == delay


@pytest.mark.parametrize(("draw", "delay"), [(0.0, 27.0), (0.5, 30.0), (1.0, 33.0)])
def test_jitter_spreads_evenly_around_the_delay(draw: float, delay: float) -> None:
    assert RetryPolicy(30, 3600, 0.1).delay_s(1, draw) == pytest.approx(delay)


def test_a_base_of_nothing_retries_at_once() -> None:
    assert RetryPolicy(0, 3600, 0.1).delay_s(5, 0.9) == 0
