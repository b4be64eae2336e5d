"""Restart, retry, stop, silence, hand-out and turns, for all inputs."""

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.policy.handout import AHEAD_S, MOST_AHEAD, MOST_AHEAD_BYTES, Room, ServiceTimes, hold_target
from reproq_supervisor.core.policy.lease import nursery_margin_s, nursery_tick_s, shard_margin_s, soft_notice_s
from reproq_supervisor.core.policy.liveness import CASCADE_LEAST, judge_silence
from reproq_supervisor.core.policy.restart import Quarantine, RestartPolicy, backoff_s, decide_restart, healthy_after_s, probe_pause_s
from reproq_supervisor.core.policy.retry import RetryPolicy
from reproq_supervisor.core.policy.shutdown import (
    DATABASE_S,
    EXIT_S,
    FLUSH_S,
    KEEPER_S,
    KILL_S,
    LEAST_S,
    MOST_RESERVED,
    NEXT,
    ROLES,
    DrainTimes,
    Phase,
    StopBudget,
    divide,
    drain_times,
    must_remain,
)
from reproq_supervisor.core.supervision.units import Role

jitters = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    RestartPolicy,
    exits=st.integers(1, 20),
    window_s=st.floats(1, 600),
    slots=st.integers(1, 64),
    base_s=st.floats(0.01, 5),
    cap_s=st.floats(5, 600),
    probe_base_s=st.floats(1, 60),
    probe_cap_s=st.floats(60, 600),
)
seconds = st.floats(0, 1e6)


# -- restart ----------------------------------------------------------------------------------------------------------


@given(policies, st.integers(1, 10_000), jitters)
def test_a_pause_lies_between_half_of_the_base_and_the_cap(policy: RestartPolicy, failures: int, jitter: float) -> None:
    full = backoff_s(policy, failures, 0.0)
    assert policy.base_s <= full <= policy.cap_s
    assert full / 2 <= backoff_s(policy, failures, jitter) <= full
    assert full <= backoff_s(policy, failures + 1, 0.0) <= 2 * full


@given(policies, st.lists(st.floats(0, 1200), max_size=100), jitters)
def test_only_the_exits_within_the_window_decide_between_a_pause_and_quarantine(
    policy: RestartPolicy, ages: list[float], jitter: float
) -> None:
    now = 10_000.0
    deaths = (*(now - age for age in ages), now)
    recent = sum(1 for died in deaths if died > now - policy.window_s)
    verdict = decide_restart(policy, len(deaths), deaths, now, jitter)
    assert isinstance(verdict, Quarantine) == (recent > policy.allowed_exits)
    assert decide_restart(policy, len(deaths), deaths[::-1], now, jitter) == verdict


@given(policies, st.integers(0, 1000))
def test_probes_never_come_more_often(policy: RestartPolicy, failed: int) -> None:
    assert policy.probe_base_s <= probe_pause_s(policy, failed) <= probe_pause_s(policy, failed + 1) <= policy.probe_cap_s


@given(policies, st.floats(0, 600))
def test_nobody_who_dies_at_an_interval_outlives_his_own_count(policy: RestartPolicy, boot_s: float) -> None:
    assert healthy_after_s(policy, boot_s) >= max(backoff_s(policy, 1000, 0.0), boot_s)


# -- retry ------------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 100), st.floats(100, 1e5), st.floats(0, 0.5), st.integers(1, 10_000), jitters)
def test_a_retry_waits_about_as_long_as_its_policy_says(base: float, cap: float, jitter: float, attempt: int, draw: float) -> None:
    policy = RetryPolicy(base, cap, jitter)
    middle = policy.delay_s(attempt, 0.5)
    assert base <= middle <= cap
    assert middle <= policy.delay_s(attempt + 1, 0.5) <= 2 * middle
    assert abs(policy.delay_s(attempt, draw) - middle) <= middle * (jitter * (1 + 1e-9) + 1e-12)


# -- stop -------------------------------------------------------------------------------------------------------------


totals = st.floats(LEAST_S, 1e5)


@given(totals, st.booleans())
def test_the_parts_of_a_stop_are_the_whole_of_it_and_no_more(total_s: float, embedded: bool) -> None:
    budget = divide(total_s, embedded=embedded)
    assert math.isclose(budget.total_s, total_s, rel_tol=1e-9)
    parts = (budget.flush_s, budget.kill_s, budget.keeper_s, budget.exit_s)
    assert min(parts) > 0.0
    assert (budget.database_s > 0.0) == embedded
    order = [budget.reserved_behind_s(phase) for phase in Phase]
    assert order == sorted(order, reverse=True)


@given(totals, st.booleans())
def test_tasks_get_all_that_the_reserves_leave_and_at_least_half(total_s: float, embedded: bool) -> None:
    budget = divide(total_s, embedded=embedded)
    full = FLUSH_S + KILL_S + KEEPER_S + EXIT_S + (DATABASE_S if embedded else 0.0)
    assert math.isclose(budget.tasks_s, max(total_s - full, total_s * (1.0 - MOST_RESERVED)), rel_tol=1e-9)


@given(totals, st.floats(0, 1e5), st.booleans())
def test_more_time_never_means_less_of_anything(total_s: float, more_s: float, embedded: bool) -> None:
    less, more = divide(total_s, embedded=embedded), divide(total_s + more_s, embedded=embedded)
    assert all(getattr(less, part) <= getattr(more, part) + 1e-6 for part in StopBudget.__slots__)


@given(totals, st.booleans(), st.floats(0, 1000))
def test_a_shard_is_dead_and_its_results_are_written_when_its_phase_is_over(total_s: float, embedded: bool, grace_s: float) -> None:
    budget = divide(total_s, embedded=embedded)
    kill_in_s = total_s - budget.reserved_behind_s(Phase.SHARDS) - budget.kill_s
    times = drain_times(kill_in_s, grace_s, budget.flush_s)
    assert min(times.timeout_s, times.grace_s) >= 0.0
    assert times.timeout_s + times.grace_s + budget.flush_s <= kill_in_s + 1e-6
    assert math.isclose(times.timeout_s + times.grace_s, budget.tasks_s, rel_tol=1e-9, abs_tol=1e-9)
    assert times.grace_s == grace_s or times.grace_s >= budget.tasks_s / 2.0 - 1e-9


@given(st.floats(-100, 1e5), st.floats(0, 1000), st.floats(0, 10))
def test_whatever_time_is_left_a_drain_ends_within_it(left_s: float, grace_s: float, flush_s: float) -> None:
    times = drain_times(left_s, grace_s, flush_s)
    assert 0.0 <= times.timeout_s + times.grace_s <= times.kill_in_s + 1e-6
    assert times.kill_in_s <= max(left_s, 0.0)
    assert times.grace_s <= grace_s


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1000))
def test_more_time_never_means_less_for_the_tasks(left_s: float, more_s: float, grace_s: float) -> None:
    less, more = drain_times(left_s, grace_s), drain_times(left_s + more_s, grace_s)
    assert less.timeout_s <= more.timeout_s + 1e-6
    assert less.grace_s <= more.grace_s
    assert less.kill_in_s <= more.kill_in_s + 1e-6


def test_the_time_of_a_stop_is_divided_between_tasks_grace_and_what_comes_after() -> None:
    assert drain_times(27.0, 10.0) == DrainTimes(13.0, 10.0, 27.0)
    assert drain_times(8.0, 3.0) == DrainTimes(2.0, 2.0, 8.0)
    assert drain_times(0.0, 10.0) == DrainTimes(0.0, 0.0, 0.0)
    assert divide(30.0, embedded=True) == StopBudget(20.5, 4.0, 0.5, 1.5, 3.0, 0.5)
    assert divide(30.0, embedded=False) == StopBudget(23.5, 4.0, 0.5, 1.5, 0.0, 0.5)


def test_every_role_ends_in_one_phase_and_the_phases_end() -> None:
    assert sorted(role for roles in ROLES.values() for role in roles) == sorted(Role)
    order = [Phase.SHARDS]
    while order[-1] in NEXT:
        order.append(NEXT[order[-1]])
    assert order == [Phase.SHARDS, Phase.KEEPER, Phase.DATABASE, Phase.OVER]


def test_what_a_later_phase_ends_is_kept_alive_until_then() -> None:
    order = [Phase.SHARDS, Phase.KEEPER, Phase.DATABASE, Phase.OVER]
    for at, phase in enumerate(order):
        assert must_remain(phase) == frozenset().union(*(ROLES[later] for later in order[at + 1 :]))


# -- silence ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.1, 100), seconds)
def test_silence_is_believed_the_second_time_and_of_few(silent: int, others: int, window_s: float, now: float) -> None:
    watched = silent + others
    assert judge_silence(silent, watched, window_s, now, spared_before=True) is None
    spare = judge_silence(silent, watched, window_s, now, spared_before=False)
    assert (spare is not None) == (silent >= CASCADE_LEAST and silent > 0.3 * watched)
    if spare is not None:
        assert spare.until_mono == now + window_s


# -- hand-out ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 64), st.floats(0, 100), st.floats(0, 1e9))
def test_every_executor_has_a_task_and_the_rest_is_bounded(executors: int, service_s: float, size_bytes: float) -> None:
    target = hold_target(executors, service_s, size_bytes)
    assert executors <= target <= executors * 512
    assert target == executors or target * size_bytes <= 64 * 1024 * 1024
    if service_s >= 0.25:
        assert target == executors


@given(st.integers(1, 64), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e6))
def test_shorter_tasks_never_mean_fewer_held(executors: int, one_s: float, other_s: float, size_bytes: float) -> None:
    short, long = sorted((one_s, other_s))
    assert hold_target(executors, short, size_bytes) >= hold_target(executors, long, size_bytes)


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 300_000)), max_size=100))
def test_what_an_executor_has_in_hand_is_bounded_in_time_count_and_bytes(tasks: list[tuple[float, int]]) -> None:
    room, taken = Room(), list[tuple[float, int]]()
    for service_s, size in tasks:
        if room.fits(service_s, size):
            room.take(service_s, size)
            taken.append((service_s, size))
    assert not tasks or taken
    assert len(taken) <= MOST_AHEAD
    if len(taken) > 1:
        assert sum(service_s for service_s, _ in taken) <= AHEAD_S
        assert sum(size for _, size in taken) <= MOST_AHEAD_BYTES


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50))
def test_an_estimate_stays_between_the_shortest_and_the_longest_run(runs: list[float]) -> None:
    times = ServiceTimes()
    for elapsed_s in runs:
        times.observe("task", elapsed_s)
    assert min(runs) * (1 - 1e-9) <= times.expected_s("task") <= max(runs) * (1 + 1e-9)


# -- lease ------------------------------------------------------------------------------------------------------------


@given(st.floats(1, 1e5))
def test_the_kills_before_the_end_of_a_lease_come_in_order(lease_s: float) -> None:
    asked_s = shard_margin_s(lease_s) + soft_notice_s(lease_s)
    assert 0 < nursery_margin_s(lease_s) < shard_margin_s(lease_s) < asked_s < lease_s / 2
    assert nursery_tick_s(lease_s) < nursery_margin_s(lease_s)


# -- turns ------------------------------------------------------------------------------------------------------------

weights = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20), min_size=1)


@given(weights, st.lists(st.integers(1, 40), min_size=1, max_size=60), st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_the_size_of_the_claims_does_not_change_what_a_queue_gets(weights: dict[str, int], some: list[int], others: list[int]) -> None:
    def got(claims: list[int]) -> dict[str, int]:
        turns, sums = Turns(weights), dict.fromkeys(weights, 0)
        for wanted in claims:
            plan = turns.take(wanted)
            turns.settle(plan, dict(plan))
            for name, share in plan:
                sums[name] += share
        return sums

    total = sum(some)
    assume(sum(others) < total)
    one, other = got(some), got([*others, total - sum(others)])
    assert all(abs(one[name] - other[name]) <= len(weights) + 1 for name in weights), (one, other)


@given(weights)
def test_no_queue_waits_for_more_than_two_rounds_of_turns(weights: dict[str, int]) -> None:
    turns, total = Turns(weights), sum(weights.values())
    waited = dict.fromkeys(weights, 0)
    for _ in range(5 * total):
        plan = turns.take(1)
        turns.settle(plan, dict(plan))
        for name, share in plan:
            waited[name] = 0 if share else waited[name] + 1
            assert waited[name] <= 2 * total / weights[name] + len(weights)
