"""Turns between queues, for all weights, claim sizes and backlogs."""

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from reproq_supervisor.core.policy.claim_plan import Turns

MOST_WANTED = 50
weights = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(1, 20), min_size=1, max_size=6)
claim_sizes = st.lists(st.integers(1, MOST_WANTED), min_size=1, max_size=100)


def offer(plan: Sequence[tuple[str, int]], backlog: Mapping[str, int], room: int | None = None) -> dict[str, int]:
    """Return what a claim brings: each its share, then what is left to the others, in the plan's order; *room* ends it early."""
    wanted = sum(share for _, share in plan)
    left = wanted if room is None else min(room, wanted)
    got = dict.fromkeys((name for name, _ in plan), 0)
    for most in (dict(plan), dict.fromkeys(got, wanted)):
        for name in got:
            more = min(most[name], backlog[name] - got[name], left)
            got[name] += more
            left -= more
    return got


@given(weights, claim_sizes)
def test_shares_add_up_to_what_was_wanted(weights: dict[str, int], claims: list[int]) -> None:
    turns = Turns(weights)
    for wanted in claims:
        plan = turns.take(wanted)
        assert sum(share for _, share in plan) == wanted
        assert sorted(name for name, _ in plan) == sorted(weights)
        assert all(share >= 0 for _, share in plan)
        turns.settle(plan, dict(plan))


@given(weights, claim_sizes)
def test_every_queue_gets_its_weight_over_time(weights: dict[str, int], claims: list[int]) -> None:
    turns = Turns(weights)
    got = dict.fromkeys(weights, 0)
    for wanted in claims:
        plan = turns.take(wanted)
        for name, share in plan:
            got[name] += share
        turns.settle(plan, dict(plan))
    for name, weight in weights.items():
        fair = sum(claims) * weight / sum(weights.values())
        assert abs(got[name] - fair) <= len(weights) + 1, (name, got, fair)


@given(weights, st.integers(1, MOST_WANTED))
def test_one_claim_is_divided_by_weight(weights: dict[str, int], wanted: int) -> None:
    for name, share in Turns(weights).take(wanted):
        assert abs(share - wanted * weights[name] / sum(weights.values())) < 1


@settings(deadline=None)
@given(weights, st.lists(st.tuples(st.integers(1, MOST_WANTED), st.integers(0, 6)), min_size=1, max_size=100), st.data())
def test_who_always_waits_gets_its_weight_whatever_the_others_have(
    weights: dict[str, int], claims: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Some queues always have more; the others have from nothing to a little. The turns of the latter are shared by weight, too."""
    always = data.draw(st.sets(st.sampled_from(sorted(weights)), min_size=1))
    turns = Turns(weights)
    got = dict.fromkeys(weights, 0)
    for wanted, few in claims:
        plan = turns.take(wanted)
        brought = offer(plan, {name: wanted if name in always else few for name in weights})
        for name, count in brought.items():
            got[name] += count
        turns.settle(plan, brought)
    rest = sum(got[name] for name in always)
    total = sum(weights[name] for name in always)
    for name in always:
        # No further off than what one claim can give to the wrong one.
        assert abs(got[name] - rest * weights[name] / total) <= MOST_WANTED + len(weights), (name, got)


@settings(deadline=None)
@given(weights, st.integers(1, MOST_WANTED), st.integers(1, 5))
def test_nobody_starves_when_every_claim_is_cut(weights: dict[str, int], wanted: int, room: int) -> None:
    """A claim that ends early serves the first in line only: so the line must change."""
    turns = Turns(weights)
    got = dict.fromkeys(weights, 0)
    for _ in range(200):
        plan = turns.take(wanted)
        brought = offer(plan, dict.fromkeys(weights, wanted), room)
        for name, count in brought.items():
            got[name] += count
        turns.settle(plan, brought, is_cut=True)
    for name, weight in weights.items():
        fair = sum(got.values()) * weight / sum(weights.values())
        assert abs(got[name] - fair) <= MOST_WANTED + len(weights), (name, got, fair)


@settings(deadline=None)
@given(weights, st.integers(1, MOST_WANTED))
def test_emptiness_is_not_saved_up(weights: dict[str, int], wanted: int) -> None:
    turns = Turns(weights)
    first = min(weights)
    for _ in range(50):
        plan = turns.take(wanted)
        turns.settle(plan, offer(plan, {name: 0 if name == first else wanted for name in weights}))
    share = dict(turns.take(wanted))[first]
    assert share <= wanted * weights[first] / sum(weights.values()) + 1


def test_a_claim_without_an_answer_changes_nothing() -> None:
    turns = Turns({"a": 2, "b": 1})
    assert turns.take(4) == turns.take(4)
