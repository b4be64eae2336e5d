"""When a shard claims again after a claim that came back short."""

import pytest

from reproq_supervisor.core.runs import CycleReply
from reproq_supervisor.pool.appetite import Appetite

FAR_S = 10_000.0


def after(reply: CycleReply, *, listens: bool = True) -> Appetite:
    """Return the appetite of one who got nothing but *reply*."""
    appetite = Appetite(1.0, 5.0, listens=listens)
    appetite.note_claim(10, reply, is_quick=False)
    assert appetite.may_rest
    return appetite


@pytest.mark.parametrize("next_token_s", [None, FAR_S])
def test_who_found_nothing_may_sleep_also_while_others_wait_for_tokens(next_token_s: float | None) -> None:
    appetite = after(CycleReply(next_token_s=next_token_s))
    assert appetite.may_settle
    assert appetite.wait_s(float("inf")) > 1.25, "the long wait of a sleeper"


@pytest.mark.parametrize("reply", [CycleReply(is_contended=True), CycleReply(next_token_s=0.02)])
def test_nobody_goes_to_sleep_for_a_moment(reply: CycleReply) -> None:
    appetite = after(reply)
    assert not appetite.may_settle
    assert appetite.wait_s(None) <= 0.02


def test_a_wait_that_is_broken_off_goes_on_as_it_was() -> None:
    appetite = after(CycleReply(next_token_s=FAR_S))
    appetite.wait_s(float("inf"))
    assert appetite.may_settle, "the watch wakes it ten times a second"
    assert 1.25 < appetite.wait_s(float("inf")) <= 6.25


def test_a_sleeper_wakes_for_the_next_token() -> None:
    assert after(CycleReply(next_token_s=0.5)).wait_s(float("inf")) <= 0.5


def test_who_hears_nothing_polls() -> None:
    appetite = after(CycleReply(next_token_s=FAR_S), listens=False)
    assert not appetite.may_settle
    assert appetite.wait_s(None) <= 2.5
