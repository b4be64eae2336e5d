"""Dead workers whose leases the keeper has yet to release.

An id is kept until the keeper has answered for it, through any number of keepers that die on the way. Expiry of the leases is the
fallback, so a bounded number of ids is enough.
"""

MAX_REMEMBERED = 10_000
BATCH = 500


class DeadWorkers:
    """Ids of workers that are gone with everything they had."""

    def __init__(self) -> None:
        self._told: dict[str, bool] = {}  # id → a living keeper has been told
        self.last_mono = float("-inf")

    def __len__(self) -> int:
        return len(self._told)

    def add(self, worker_id: str, now: float) -> None:
        """Remember that *worker_id* is dead, which may be found out in two ways; the oldest is forgotten when there are too many."""
        if worker_id in self._told:
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
        self._told = dict.fromkeys(self._told, False)

    def settle(self, worker_ids: list[str]) -> None:
        """The keeper released these."""
        for worker_id in worker_ids:
            self._told.pop(worker_id, None)
