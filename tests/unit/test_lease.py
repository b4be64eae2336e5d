"""The moments at which an execution is killed before its lease ends."""

import pytest

from reproq_supervisor.core.policy.lease import nursery_margin_s, nursery_tick_s, shard_margin_s

SHARD_TICK_S = 0.1
KILL_TAKES_S = 0.02


@pytest.mark.parametrize("lease_s", [1, 1.5, 2, 5, 10, 60, 600, 86400])
def test_shard_before_nursery_before_the_end(lease_s: float) -> None:
    assert 0 < nursery_tick_s(lease_s) < nursery_margin_s(lease_s) < shard_margin_s(lease_s) < lease_s / 3
    assert shard_margin_s(lease_s) - SHARD_TICK_S > KILL_TAKES_S
    assert nursery_margin_s(lease_s) - nursery_tick_s(lease_s) > KILL_TAKES_S


def test_a_long_lease_is_used_almost_to_its_end() -> None:
    assert shard_margin_s(3600) == 2.0
