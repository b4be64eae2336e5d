"""Turns between queues, for all weights and claim sizes."""

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.claim_plan import Turns

weights = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(1, 20), min_size=1, max_size=6)


@given(weights, st.lists(st.integers(1, 200), min_size=1, max_size=60))
def test_shares_add_up_to_what_was_wanted(weights: dict[str, int], claims: list[int]) -> None:
    turns = Turns(weights)
    for wanted in claims:
        shares = turns.take(wanted)
        assert sum(share for _, share in shares) == wanted
        assert sorted(name for name, _ in shares) == sorted(weights)
        assert all(share >= 0 for _, share in shares)


@given(weights, st.lists(st.integers(1, 50), min_size=1, max_size=100))
def test_every_queue_gets_its_weight_over_time(weights: dict[str, int], claims: list[int]) -> None:
    turns = Turns(weights)
    got = dict.fromkeys(weights, 0)
    for wanted in claims:
        for name, share in turns.take(wanted):
            got[name] += share
    for name, weight in weights.items():
        fair = sum(claims) * weight / sum(weights.values())
        assert abs(got[name] - fair) <= len(weights) + 1, (name, got, fair)
