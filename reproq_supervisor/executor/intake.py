"""Handed-out work of an executor with several slots, taken by whoever has a slot free.

How many tasks run at once may change at any time: what runs is let end, and who would be one too many waits.

A task starts only after its token was read; what the shard took back in the meantime is dropped. Tokens are written before the frame of
their tasks, so a token may have to wait for its task, but never the other way round.
"""

import os
import threading
from collections import deque
from collections.abc import Iterable

from reproq_supervisor.core.work import TOKEN, Work


class Intake:
    """Filled by the thread that reads the socket, emptied by any: by threads that `take`, or by a loop that counts for itself."""

    def __init__(self, tokens_fd: int, slots: int) -> None:
        self._tokens_fd = tokens_fd
        self._slots = slots
        self._taken = 0  # by threads that have not come back
        self._waiting: deque[Work] = deque()
        self._token: int | None = None  # taken, but its task has not arrived
        self._closed = False
        self._changed = threading.Condition()

    def feed(self, works: Iterable[Work]) -> None:
        """Take a hand-out in."""
        with self._changed:
            before = len(self._waiting)
            self._waiting.extend(works)
            self._changed.notify(len(self._waiting) - before)

    def close(self) -> None:
        """No more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> Work | None:
        """Wait for a slot and a task, and start it; None when there will be none any more."""
        with self._changed:
            while True:
                work = self._take() if self._taken < self._slots else None
                if work is not None:
                    self._taken += 1
                    return work
                if self._closed and not self._waiting:
                    self._changed.notify_all()  # who waited for a slot
                    return None
                self._changed.wait()

    def take_next(self) -> Work | None:
        """End the task that was taken, its result being sent, and take another one."""
        with self._changed:
            self._taken -= 1
            return self.take()

    def use_slots(self, slots: int) -> None:
        """Have so many tasks run at once from now on."""
        with self._changed:
            self._slots = slots
            self._changed.notify_all()

    def take_nowait(self) -> Work | None:
        """Start a task if there is one."""
        with self._changed:
            return self._take()

    def _take(self) -> Work | None:
        if not self._waiting:
            return None
        if self._token is None:
            self._token = read_token(self._tokens_fd)
            if self._token is None:
                self._waiting.clear()  # every token is gone: the shard took the rest back
                return None
        while self._waiting and self._waiting[0].seq < self._token:
            self._waiting.popleft()
        if not self._waiting:
            return None
        self._token = None
        return self._waiting.popleft()


def read_token(tokens_fd: int) -> int | None:
    """Take the next token out of the pipe; None when there is none."""
    try:
        token = os.read(tokens_fd, TOKEN.size)
    except BlockingIOError:
        return None
    return int(TOKEN.unpack(token)[0]) if token else None
