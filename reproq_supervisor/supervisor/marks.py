"""Workers of earlier daemons that are dead: found by their marks, so that their leases need not end by themselves."""

import socket
from collections.abc import Iterable

from reproq_supervisor.core.supervision.facts import Fact, WorkersFoundDead
from reproq_supervisor.process.worker_mark import find_dead, forget

LOOK_S = 1.0
"""A nursery that is still ending keeps its mark, so one look at the start is not enough."""


class Marks:
    """Looks into the folder of marks; every dead worker is told of once. Those of our own dead shards are found as well, and harmless.

    This is the loop's one look at a disk: a folder of `state_dir`, which is local, and at most `MOST_LOOKED_AT` names of it at a time.
    A child for it would have to be started every second.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._prefix = f"{socket.gethostname()}-"
        self._told: set[str] = set()
        self._next_mono = 0.0

    def look(self, now: float) -> list[Fact]:
        """Return who was found dead, if it is time to look."""
        if now < self._next_mono:
            return []
        self._next_mono = now + LOOK_S
        fresh = find_dead(self._folder, self._prefix, known=self._told)
        self._told.update(fresh)
        return [WorkersFoundDead(tuple(fresh))] if fresh else []

    def forget(self, worker_ids: Iterable[str]) -> None:
        """Remove the marks of workers whose leases were released."""
        for worker_id in worker_ids:
            forget(self._folder, worker_id)
            self._told.discard(worker_id)
