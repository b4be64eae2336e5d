"""Workers of this host of which no process is left: what they held is given back at once, uncounted."""

import math
from collections.abc import Callable, Iterable

from reproq_supervisor.keeper.duties import Ran
from reproq_supervisor.store.keeper import KeeperStore

RELEASE_AGAIN_S = 1.0
"""Between two releases of a dead worker: a claim that its server process was still committing when it died is found by the second."""
RELEASE_ROUNDS = 60
"""How often that is tried for runs that somebody has locked; then they are left to the sweep for expired leases."""


class DeadWorkers:
    """Those that the supervisor has told of, until they hold nothing."""

    def __init__(self, tell: Callable[[list[str], int], None], tell_settled: Callable[[list[str]], None]) -> None:
        """Call *tell* with the ids of workers that were released, and with the number of runs that were given back.

        Call *tell_settled* with those that nobody needs to look at again.
        """
        self._tell = tell
        self._tell_settled = tell_settled
        self._dead: dict[str, None] = {}  # in the order they died
        self._released: dict[str, int] = {}  # released once; looked at once more, and while they hold runs at most so often

    def add(self, worker_ids: Iterable[str]) -> None:
        """Take in workers whose leases are to be released."""
        self._dead |= dict.fromkeys(worker_ids)

    async def release(self, store: KeeperStore) -> Ran:
        """Release what they hold: the new ones, and those of which runs were left last time."""
        workers, again = list(self._dead), list(self._released)
        if not workers and not again:
            return Ran(0)
        count = await store.release_workers([*workers, *again])
        holding = await store.holders(again) if again else frozenset()
        left = {worker: rounds - 1 for worker, rounds in self._released.items() if worker in holding and rounds > 1}
        settled = [worker for worker in again if worker not in left]
        self._released = left | dict.fromkeys(workers, RELEASE_ROUNDS)
        for worker in workers:
            self._dead.pop(worker, None)
        if workers:
            self._tell(workers, count)
        if settled:
            self._tell_settled(settled)
        return Ran(count, RELEASE_AGAIN_S if self._released else math.inf)
