"""What one executor is given next: runs of the buffer, as many as its slots and the expected length of what it has allow."""

from collections import deque

from reproq_supervisor.core.policy.handout import Room, ServiceTimes, most_before_low
from reproq_supervisor.pool.held import Held, Phase
from reproq_supervisor.pool.in_hand import InHand


def draw_batch(
    buffer: deque[Held], in_hand: InHand, times: ServiceTimes, *, most_ahead: int, startable_until: float, now_mono: float
) -> list[Held]:
    """Take the runs out of *buffer* that should go to the executor with these hands now; none while it has enough.

    Args:
      most_ahead: runs in its hands beyond one for each slot, plus one.
      startable_until: boot time; a lease that ends before is too short to start under.
    """
    if len(in_hand) >= most_before_low(in_hand.slots, most_ahead):
        return []  # as `Room.is_low` would say, without a look at each
    room = Room(in_hand.slots, most_ahead)
    for held in in_hand:
        # What runs may have turned out to be long: then nothing may wait behind it.
        elapsed = 0.0 if held.started_mono is None else now_mono - held.started_mono
        room.take(max(times.expected_s(held.claimed.task_path), elapsed), len(held.claimed.spec))
    if not room.is_low:
        return []
    batch: list[Held] = []
    unshown: list[Held] = []
    while buffer:
        held = buffer[0]
        if held.phase is Phase.ENDED:
            buffer.popleft()  # cancelled or lost while it waited
            continue
        seconds, size = times.expected_s(held.claimed.task_path), len(held.claimed.spec)
        if not room.fits(seconds, size) or held.lease_until <= startable_until:
            break  # what has waited too long, e.g. in a shard that was frozen, the watch gives back
        if held.claimed.is_suspect and not held.shown:
            # Shown only where it starts at once: to be shown and wait would make an innocent look guilty.
            if not held.is_next and (len(in_hand) or batch):
                break
            held.is_next = True
            unshown.append(buffer.popleft())
            continue
        buffer.popleft()
        room.take(seconds, size)
        batch.append(held)
    buffer.extendleft(reversed(unshown))
    return batch
