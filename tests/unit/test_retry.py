"""The delay before the next attempt."""

import pytest

from reproq_supervisor.core.policy.retry import RetryPolicy
from reproq_supervisor.pool.start import ShardStart

PLAIN = RetryPolicy(base_s=30, cap_s=3600, jitter=0)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (9, 3600), (10**9, 3600)])
def test_the_delay_doubles_up_to_its_cap(attempt: int, delay: float) -> None:
    assert PLAIN.delay_s(attempt, 0.5) == delay


@pytest.mark.parametrize(("draw", "delay"), [(0.0, 27.0), (0.5, 30.0), (1.0, 33.0)])
def test_jitter_spreads_evenly_around_the_delay(draw: float, delay: float) -> None:
    assert RetryPolicy(30, 3600, 0.1).delay_s(1, draw) == pytest.approx(delay)


@pytest.mark.parametrize(
    ("own", "base", "cap"),
    [
        (None, 5.0, 60.0),
        ({"retry_base": None, "retry_cap": None}, 5.0, 60.0),
        ({"retry_base": 1.0}, 1.0, 60.0),
        ({"retry_cap": 9.0}, 5.0, 9.0),
    ],
)
def test_what_a_queue_says_of_its_own_goes_before_what_its_pool_says(own: dict[str, float | None] | None, base: float, cap: float) -> None:
    start = ShardStart.from_message(
        {
            **dict.fromkeys(("child", "worker_id", "dsn", "logs_dir")),
            "app": {},
            "shutdown_timeout": 30.0,
            "pool_settings": {"queues": {"mail": 1}, "retry": {"base": 5.0, "cap": 60.0, "jitter": 0.2}},
            "queues_settings": {"other": {"retry_base": 77.0}} | ({"mail": own} if own is not None else {}),
        },
        1,
    )
    assert start.retry_of("mail") == RetryPolicy(base, cap, 0.2)
    calm = start.adjusted({"pool_settings": start.pool_settings, "queues_settings": {"mail": {"retry_base": 8.0}}})
    assert calm.retry_of("mail").base_s == 8.0, "a reload changes it"


def test_a_base_of_nothing_retries_at_once() -> None:
    assert RetryPolicy(0, 3600, 0.1).delay_s(5, 0.9) == 0
