"""The executors of a shard, counted: how many can work, how many do, and for how many tasks there is room."""

from reproq_supervisor.pool.worker import Executor


class Roll:
    """Who there is. A crew adds what is done with them.

    Attributes:
      wanted: executors that there shall be.
      slots_each: tasks that each shall run at once; None: as many as it can.
    """

    def __init__(self, *, single_use: bool) -> None:
        self.wanted = 0
        self.slots_each: int | None = None
        self._single_use = single_use
        self._executors: dict[int, Executor] = {}

    @property
    def executors(self) -> list[Executor]:
        return list(self._executors.values())

    @property
    def ready(self) -> int:
        """Executors that can be given work, those that only wait beside them left out."""
        ready = sum(not (e.leaving or e.exited) for e in self._executors.values())
        return min(ready, self.wanted) if self._single_use else ready

    @property
    def slots(self) -> int:
        """Slots of the ready executors."""
        return self.ready * next((e.in_hand.slots for e in self._executors.values()), 1)

    @property
    def busy(self) -> int:
        """Executors that have work in hand."""
        return sum(bool(e.in_hand) for e in self._executors.values())

    @property
    def running(self) -> int:
        """Slots that have a run."""
        return sum(e.in_hand.running for e in self._executors.values())
