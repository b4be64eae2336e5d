"""A heap of tasks that waits, and how much of it has been there for long enough for what runs to tell of it.

What ran before a heap came says nothing of whether it computes. A look later what runs is of the heap; and what it has grown by since then
is as new as the heap was. Pure.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heap:
    """What was wanted for a heap.

    Attributes:
      looked_mono, want: an earlier look at it, and what was wanted then.
      trusted: the most that was wanted long enough ago.
    """

    looked_mono: float
    want: int
    trusted: int = 0


def note_heap(heap: Heap | None, want: int, now: float, unseen_s: float) -> Heap | None:
    """Note what a heap asks for now; None without one.

    Args:
      want: executors, 0 while idle ones take all that waits.
      unseen_s: how long it must have been there.
    """
    if not want:
        return None
    if heap is None:
        return Heap(now, want)
    if now - heap.looked_mono < unseen_s:
        return heap
    return Heap(now, want, max(heap.trusted, heap.want))
