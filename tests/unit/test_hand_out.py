"""What an executor is given next."""

from collections import deque

from reproq_supervisor.core.policy.handout import ServiceTimes
from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.pool.hand_out import draw_batch
from reproq_supervisor.pool.held import Held
from reproq_supervisor.pool.in_hand import InHand


def held(run: int, *, is_suspect: bool = False) -> Held:
    claimed = Claimed(RunId(run), LeaseNo(1), 1, "default", 0, "app.task", 60.0, 3, b"{}", is_suspect)
    return Held(claimed, lease_until=1000.0, claimed_mono=0.0, seq=run)


def draw(buffer: deque[Held], in_hand: InHand) -> list[int]:
    times = ServiceTimes()
    times.observe("app.task", 0.0001)
    batch = draw_batch(buffer, in_hand, times, most_ahead=64, startable_until=0.0, now_mono=0.0)
    in_hand.add(batch)
    return [each.claimed.result_id for each in batch]


def test_a_suspect_is_handed_out_alone_and_only_when_it_is_shown() -> None:
    suspect = held(2, is_suspect=True)
    buffer, busy, idle = deque([held(1), suspect, held(3)]), InHand(1), InHand(1)
    assert draw(buffer, busy) == [1]
    assert not suspect.is_next, "it would wait behind the first"
    assert draw(buffer, idle) == [3], "nobody waits for its record to be written"
    assert suspect.is_next
    assert list(buffer) == [suspect]
    assert draw(buffer, InHand(1)) == []
    suspect.shown = True
    assert draw(buffer, InHand(1)) == [2]
