"""Dead workers whose leases the keeper has yet to release.

An id is kept until the keeper has answered for it twice, through any number of keepers that die on the way: it has released what it
found, and, a moment later, has found nothing more (a claim may still have been committing when its shard died). Expiry of the leases is
the fallback, so a bounded number of ids is enough.
"""

MAX_REMEMBERED = 10_000
BATCH = 500


class DeadWorkers:
    """Ids of workers that are gone with everything they had."""

    def __init__(self) -> None:
        self._told: dict[str, bool] = {}  # id → a living keeper has been told
        self._released: dict[str, None] = {}  # by the living keeper, which will look at them again
        self.last_mono = float("-inf")

    def __len__(self) -> int:
        """Return how many were not released yet."""
        return len(self._told)

    def add(self, worker_id: str, now: float) -> None:
        """Remember that *worker_id* is dead, which may be found out in two ways; the oldest is forgotten when there are too many."""
        if worker_id in self._told or worker_id in self._released:
            return
        self._told[worker_id] = False
        self.last_mono = now
        if len(self._told) > MAX_REMEMBERED:
            del self._told[next(iter(self._told))]

    def take_untold(self) -> list[list[str]]:
        """Return the ids that no living keeper knows of, in batches, and mark them as told."""
        ids = [worker_id for worker_id, told in self._told.items() if not told]
        self._told.update(dict.fromkeys(ids, True))
        return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]

    def forget_telling(self) -> None:
        """The keeper died: the next one is told everything again (a release is idempotent, being fenced)."""
        self._told = dict.fromkeys([*self._released, *self._told], False)
        self._released.clear()

    def release(self, worker_ids: list[str]) -> None:
        """The keeper released these, and will look at them again."""
        for worker_id in worker_ids:
            if self._told.pop(worker_id, None) is not None:
                self._released[worker_id] = None
        while len(self._released) > MAX_REMEMBERED:
            del self._released[next(iter(self._released))]

    def settle(self, worker_ids: list[str]) -> None:
        """The keeper has found nothing more of these."""
        for worker_id in worker_ids:
            self._told.pop(worker_id, None)
            self._released.pop(worker_id, None)
