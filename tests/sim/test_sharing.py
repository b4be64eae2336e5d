"""Several pools on one machine, each with its own rule for its size, and what they share divided between them every second."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from reproq_supervisor.core.policy.budget import Amounts, Claimant, Grant, divide
from reproq_supervisor.core.policy.sizing import SizeDecision, SizeLimits, SizeReason, SizeState, SizeTuning, decide_size, start_size
from tests.sim.plant import Outcome, Scenario, play

TOTAL = 16


@dataclass
class SharedPool:
    """One pool, as its shard and the supervisor see it."""

    scenario: Scenario
    weight: float = 1.0
    takes: Amounts = field(default_factory=lambda: Amounts(executors=1.0))
    outcome: Outcome = field(default_factory=Outcome)
    state: SizeState | None = None
    decision: SizeDecision | None = None
    grant: Grant | None = None
    reasons: set[SizeReason] = field(default_factory=set)

    def claimant(self) -> Claimant:
        scenario, decision = self.scenario, self.decision
        alive = self.outcome.sizes[-1] if self.outcome.sizes else scenario.least
        if decision is None:
            return Claimant(scenario.least, scenario.most, alive, 0, scenario.least, self.weight, self.takes)
        size = max(decision.size, alive)
        return Claimant(scenario.least, scenario.most, size, decision.want, decision.use, self.weight, self.takes)


def together(totals: Amounts, pools: Sequence[SharedPool], *, seed: int = 1) -> list[list[int]]:
    """Play the scenarios beside each other; return what all had at each second, and fill the outcomes."""
    plays = [play(pool.scenario, pool.outcome, seed=seed + i) for i, pool in enumerate(pools)]
    heard = [next(each) for each in plays]
    sizes: list[list[int]] = []
    for _ in count():
        for pool, grant in zip(pools, divide(totals, [pool.claimant() for pool in pools]), strict=True):
            pool.grant = grant
        for i, pool in enumerate(pools):
            now, load, _ = heard[i]
            assert load is not None
            limits = SizeLimits(pool.scenario.least, pool.scenario.most, pool.grant.executors if pool.grant and pool.grant.lacks else None)
            state = pool.state or start_size(limits, load, now)
            pool.state, pool.decision = decide_size(SizeTuning(), limits, state, load, now)
            pool.reasons.add(pool.decision.reason)
            try:
                heard[i] = plays[i].send(pool.decision.size)
            except StopIteration:
                return sizes
        sizes.append([pool.outcome.sizes[-1] for pool in pools])
    raise AssertionError("no end")


def busy(name: str, *, since: float = 0.0, until: float = 1e9, rate: float = 40.0, **more: float) -> Scenario:
    return Scenario(name, lambda t: rate if since <= t < until else 0.1, seconds=900.0, **more)  # type: ignore[arg-type]


def test_pools_that_all_want_more_have_what_their_weights_say_and_never_more_than_there_is() -> None:
    pools = [SharedPool(busy("heavy"), weight=3.0), SharedPool(busy("light"))]
    sizes = together(Amounts(executors=TOTAL), pools)
    assert all(sum(each) <= TOTAL for each in sizes)
    assert sizes[-1] == [12, 4]
    assert all(SizeReason.BUDGET in pool.reasons for pool in pools)


def test_a_pool_that_has_everything_gives_back_when_another_gets_work() -> None:
    first, second = SharedPool(busy("first")), SharedPool(busy("second", since=300))
    sizes = together(Amounts(executors=TOTAL), [first, second])
    assert sizes[290] == [TOTAL - 1, 1]
    # Tasks of a second: some seconds later it has its half.
    assert sizes[315][1] >= TOTAL // 2 - 1
    assert all(sum(each) <= TOTAL for each in sizes)


def test_no_pool_is_without_its_least_however_little_there_is() -> None:
    pools = [SharedPool(busy("greedy"), weight=100.0), *(SharedPool(Scenario(f"{i}", lambda _: 0.5, seconds=900.0)) for i in range(4))]
    sizes = together(Amounts(executors=6), pools)
    assert all(min(each) >= 1 for each in sizes[5:])
    assert all(pool.outcome.p95_s < 60 for pool in pools[1:])


def test_a_busy_pool_uses_what_idle_ones_leave() -> None:
    pools = [SharedPool(busy("busy")), *(SharedPool(Scenario(f"{i}", lambda _: 0.1, seconds=900.0)) for i in range(3))]
    sizes = together(Amounts(executors=TOTAL), pools)
    assert sizes[-1][0] >= TOTAL - 3 - 2


def test_a_short_burst_of_one_is_over_before_long_for_the_other() -> None:
    steady = SharedPool(Scenario("steady", lambda _: 5.0, seconds=900.0))
    bursts = SharedPool(busy("bursts", since=300, until=330))
    sizes = together(Amounts(executors=TOTAL), [steady, bursts])
    # What the steady one needs is within its part, and is left to it.
    assert min(size for size, _ in sizes[100:]) >= 5
    assert steady.outcome.p95_s < 1.0


def test_sizes_do_not_swing_while_all_want_more() -> None:
    pools = [SharedPool(busy("one")), SharedPool(busy("other")), SharedPool(busy("third"), weight=2.0)]
    together(Amounts(executors=TOTAL), pools)
    assert all(pool.outcome.reversals <= 4 for pool in pools)


def test_computing_pools_share_the_processors_and_a_sleeping_one_does_not_care() -> None:
    computes, sleeps = Amounts(executors=1.0, processors=1.0), Amounts(executors=1.0, processors=0.0)
    pools = [SharedPool(busy("a"), takes=computes), SharedPool(busy("b"), takes=computes), SharedPool(busy("c"), takes=sleeps)]
    sizes = together(Amounts(processors=8.0), pools)
    # One more than its part is no reason to dismiss one.
    assert {4, 5} >= set(sizes[-1][:2])
    assert sizes[-1][2] == 20
