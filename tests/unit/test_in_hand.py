"""What an executor has in hand: which of it runs, which of it waits, and whose results are believed."""

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.pool.held import Held
from reproq_supervisor.pool.in_hand import InHand


def held_run(seq: int) -> Held:
    claimed = Claimed(RunId(seq + 100), LeaseNo(seq), 1, "default", 0, "app.task", 60.0, 3, b"{}")
    return Held(claimed, lease_until=0.0, claimed_mono=0.0, seq=seq)


def in_hand(slots: int, count: int) -> InHand:
    hands = InHand(slots)
    hands.add(held_run(seq) for seq in range(1, count + 1))
    return hands


def seqs(runs: list[Held]) -> list[int]:
    return [held.seq for held in runs]


def test_what_has_started_comes_before_what_has_not() -> None:
    hands = in_hand(2, 5)
    assert (seqs(hands.started(3)), hands.first_unstarted(3)) == ([1, 2], 3)
    assert (seqs(hands.started(0)), hands.first_unstarted(0)) == ([1, 2, 3, 4, 5], 0)
    assert (seqs(hands.started(9)), hands.first_unstarted(9)) == ([], 1)


def test_a_result_is_believed_only_of_what_can_be_running() -> None:
    hands = in_hand(2, 3)
    assert hands.finish(3) is None
    assert hands.finish(7) is None
    second = hands.finish(2)
    assert second is not None
    assert second.seq == 2
    third = hands.finish(3)  # it had the slot of the second
    assert third is not None
    assert third.seq == 3
    assert seqs(list(hands)) == [1]


def test_time_counts_for_those_that_have_a_slot() -> None:
    hands = in_hand(2, 3)
    hands.note_begun(5.0)
    hands.finish(1)
    hands.note_begun(7.0)
    assert [held.started_mono for held in hands] == [5.0, 7.0]


def test_what_is_taken_back_keeps_its_order() -> None:
    hands = in_hand(1, 5)
    assert seqs(hands.remove({5, 3, 4, 9})) == [3, 4, 5]
    assert seqs(list(hands)) == [1, 2]
    assert (hands.running, hands.is_full, len(hands)) == (1, True, 2)


def test_a_run_handed_out_again_is_not_the_earlier_hand_out() -> None:
    hands, (first, *_) = in_hand(1, 1), list(in_hand(1, 1))
    assert first not in hands
    assert all(held in hands for held in hands)


@given(slots=st.integers(1, 5), draws=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40))
def test_an_executor_that_keeps_to_its_slots_is_always_believed(slots: int, draws: list[tuple[int, int]]) -> None:
    """An executor in a few lines: it starts in order when it has a slot, and ends what it likes."""
    hands, running, waiting, seq = InHand(slots), [], [], 0
    for which, more in draws:
        for _ in range(more):
            seq += 1
            hands.add([held_run(seq)])
            waiting.append(seq)
        while waiting and len(running) < slots:
            running.append(waiting.pop(0))
        assert seqs(hands.started(len(waiting))) == running
        if running:
            ended = running.pop(which % len(running))
            held = hands.finish(ended)
            assert held is not None
            assert held.seq == ended
