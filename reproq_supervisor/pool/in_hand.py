"""The runs in one executor's hands, and which of them have started.

Tokens are taken in the order of hand-out, and a slot is free again only after its result was sent. So what has started comes before what
has not, and a result is always of one of the first *most* runs: so many slots there can be, of which *slots* are in use now.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from reproq_supervisor.pool.held import Held


class InHand:
    """In the order of hand-out; at most *slots* of them run at once, or more for a while after that became fewer."""

    def __init__(self, most: int) -> None:
        self.most = self.slots = most
        self._by_seq: dict[int, Held] = {}

    def __len__(self) -> int:
        return len(self._by_seq)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._by_seq.values())

    def __contains__(self, held: Held) -> bool:
        return self._by_seq.get(held.seq) is held

    @property
    def running(self) -> int:
        """Runs that have a slot, or are about to."""
        return min(len(self._by_seq), self.slots)

    @property
    def is_full(self) -> bool:
        """Whether every slot has a run."""
        return len(self._by_seq) >= self.slots

    def get(self, seq: int) -> Held | None:
        """Return the run of a hand-out if it can be running, else None."""
        return self._by_seq[seq] if seq in islice(self._by_seq, self.most) else None

    def add(self, runs: Iterable[Held]) -> None:
        """Take runs in that were handed out just now."""
        self._by_seq.update([(held.seq, held) for held in runs])

    def finish(self, seq: int) -> Held | None:
        """Take the run of a result out; None when no run of that hand-out can be running."""
        # Mostly it is the first: one look less for each task.
        if seq == next(iter(self._by_seq), None) or self.get(seq) is not None:
            return self._by_seq.pop(seq)
        return None

    def remove(self, seqs: Iterable[int]) -> list[Held]:
        """Take these hand-outs out, and return their runs in order."""
        return [held for seq in sorted(seqs) if (held := self._by_seq.pop(seq, None)) is not None]

    def started(self, unstarted: int) -> list[Held]:
        """Return the runs that have started, when so many have not."""
        return list(islice(self._by_seq.values(), max(0, len(self._by_seq) - unstarted)))

    def first_unstarted(self, unstarted: int) -> int:
        """Return the hand-out that starts next, when so many have not started; 0 for none."""
        return next(islice(self._by_seq, max(0, len(self._by_seq) - unstarted), None), 0)

    def note_begun(self, now_mono: float) -> None:
        """Count the time of every run that has a slot, from now unless it began before."""
        for held in islice(self._by_seq.values(), self.slots):
            if held.started_mono is None:
                held.started_mono = now_mono

    def clear(self) -> list[Held]:
        """Take everything out, and return it."""
        runs = list(self._by_seq.values())
        self._by_seq.clear()
        return runs
