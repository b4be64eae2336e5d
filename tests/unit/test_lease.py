"""The moments at which an execution is killed before its lease ends."""

import pytest

from reproq_supervisor.core.policy.lease import nursery_margin_s, nursery_tick_s, shard_margin_s, soft_notice_s, start_margin_s

SHARD_TICK_S = 0.1
KILL_TAKES_S = 0.02
RENEWED_AFTER = 1 / 3
"""Of the lease: see `Ledger.request`."""

LEASES_S = [1, 1.5, 2, 5, 10, 60, 600, 86400]


@pytest.mark.parametrize(("lease_s", "margin_s"), [(1.0, 0.15), (1.5, 0.15), (2.0, 0.2), (10.0, 1.0), (30.0, 3.0), (600.0, 3.0)])
def test_a_starved_nursery_may_wake_a_tenth_of_the_lease_late(lease_s: float, margin_s: float) -> None:
    assert nursery_margin_s(lease_s) == pytest.approx(margin_s)


@pytest.mark.parametrize("lease_s", LEASES_S)
def test_a_shard_that_runs_kills_before_its_nursery(lease_s: float) -> None:
    assert shard_margin_s(lease_s) - SHARD_TICK_S - KILL_TAKES_S > nursery_margin_s(lease_s)


@pytest.mark.parametrize("lease_s", LEASES_S)
def test_nothing_starts_whose_deadline_the_nursery_could_see_too_late(lease_s: float) -> None:
    assert start_margin_s(lease_s) - nursery_margin_s(lease_s) >= nursery_tick_s(lease_s) + SHARD_TICK_S


@pytest.mark.parametrize("lease_s", LEASES_S)
def test_nobody_is_asked_or_killed_before_a_renewal_had_time(lease_s: float) -> None:
    left_s = lease_s * (1 - RENEWED_AFTER)
    assert left_s - start_margin_s(lease_s) > 1.5 * SHARD_TICK_S
    assert left_s - shard_margin_s(lease_s) - soft_notice_s(lease_s) > 1.5 * SHARD_TICK_S
