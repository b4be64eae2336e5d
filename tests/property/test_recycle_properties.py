"""When an executor has done enough: for all rules, draws and executors."""

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.recycle import EXACT_AGAIN_S, Allowance, Measured, RecyclePolicy, RecycleReason

sizes = st.integers(0, 2**45)
policies = st.builds(RecyclePolicy, st.integers(0, 10**6), sizes, st.floats(0, 1e8), st.floats(0, 1), st.integers(1, 100))
draws = st.floats(0, 1, exclude_max=True)


@given(policies, draws)
def test_jitter_takes_off_at_most_its_part_and_never_a_whole_rule(policy: RecyclePolicy, draw: float) -> None:
    own = policy.allowance(draw)
    for limit, mine, unit in (
        (policy.tasks, own.tasks, 1),
        (policy.rss_bytes, own.rss_bytes, 1),
        (policy.age_s, own.age_s, 0.001),
    ):
        assert bool(mine) == bool(limit)
        assert mine <= max(limit, unit)
        assert mine >= limit * (1 - policy.jitter) - unit


@given(policies)
def test_no_draw_is_no_spread(policy: RecyclePolicy) -> None:
    own = policy.allowance(0.0)
    assert (own.tasks, own.rss_bytes) == (policy.tasks, policy.rss_bytes)


@given(st.integers(0, 10**9), st.floats(0, 1e9), sizes)
def test_without_rules_nothing_is_ever_used_up(tasks: int, age_s: float, private: int) -> None:
    assert RecyclePolicy().is_off
    assert RecyclePolicy().allowance(0.5).used_up(tasks, age_s, private) is None


@given(policies, draws, st.integers(0, 10**6), st.floats(0, 1e8), sizes)
def test_what_is_used_up_stays_so_with_more_of_everything(
    policy: RecyclePolicy, draw: float, tasks: int, age_s: float, private: int
) -> None:
    own = policy.allowance(draw)
    if own.used_up(tasks, age_s, private) is not None:
        assert own.used_up(tasks + 1, age_s + 1, private + 1) is not None


@given(policies.filter(lambda policy: policy.rss_bytes > 0), draws, st.integers(0, 10**6), st.floats(0, 1e8))
def test_memory_is_the_reason_that_is_told_first(policy: RecyclePolicy, draw: float, tasks: int, age_s: float) -> None:
    assert policy.allowance(draw).used_up(tasks, age_s, policy.rss_bytes) is RecycleReason.RSS


def test_each_rule_is_met_at_its_limit_and_not_before() -> None:
    own = Allowance(tasks=10, rss_bytes=0, age_s=60.0)
    assert own.used_up(9, 59.9, 10**12) is None
    assert own.used_up(10, 0.0, 0) is RecycleReason.TASKS
    assert own.used_up(0, 60.0, 0) is RecycleReason.AGE


# -- memory: the cheap measurement may only be trusted where it cannot hide what is over the limit ---------------------


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 2**40))
def test_growth_since_the_exact_measurement_is_never_missed(shared: int, private: int, growth: int, limit: int) -> None:
    measured = Measured(shared + private, private, at_mono=0.0)
    if private + growth >= limit:
        assert not measured.is_good_enough(limit, shared + private + growth, now=1.0)


@given(st.integers(0, 2**40), st.integers(1, 2**40), st.floats(0, 1e9))
def test_private_memory_cannot_be_more_than_anonymous_memory(anonymous: int, limit: int, now: float) -> None:
    measured = Measured()
    assert measured.estimate(anonymous) <= anonymous
    assert measured.is_good_enough(limit, anonymous, now) == (anonymous < limit)


def test_an_exact_measurement_is_believed_for_a_while_only() -> None:
    # Half of 400 is shared: writing to it makes it private, which the cheap measurement cannot see.
    measured = Measured(400, 200, at_mono=10.0)
    assert measured.is_good_enough(300, 450, now=10.0)
    assert not measured.is_good_enough(300, 450, now=10.0 + EXACT_AGAIN_S)
