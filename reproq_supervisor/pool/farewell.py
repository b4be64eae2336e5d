"""How much time a shard has to leave: what its supervisor gives it, or next to none once that is gone."""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")

_QUIT_GRACE_S = 1.0
_FLUSH_S = 4.0
_NURSERY_S = 5.0
_ORPHAN_FLUSH_S = 1.0
_ORPHAN_NURSERY_S = 0.5
_SHARE = 0.7
"""Of the time until our own kill, so that something is left for what comes after."""


class Farewell:
    """The deadlines of the end; a later order can only shorten them."""

    def __init__(self) -> None:
        self.orphaned = False
        self._killed_mono = math.inf  # when the supervisor kills us

    def order(self, message: Mapping[str, Any], grace_s: float) -> tuple[float, float]:
        """Take a `drain` or `quit`; return the seconds until the soft signal, and from there to the kill of a task.

        Args:
          grace_s: the pool's own.
        """
        self._killed_mono = min(self._killed_mono, time.monotonic() + message.get("within", math.inf))
        most_s = grace_s if message["type"] == "drain" else min(_QUIT_GRACE_S, grace_s)
        return message.get("timeout", 0.0), min(most_s, message.get("grace", most_s))

    @property
    def flush_s(self) -> float:
        """Seconds to write back what ended."""
        return self._cut(_ORPHAN_FLUSH_S if self.orphaned else _FLUSH_S)

    @property
    def nursery_s(self) -> float:
        """Seconds for the nursery to leave by itself."""
        return self._cut(_ORPHAN_NURSERY_S if self.orphaned else _NURSERY_S)

    def _cut(self, most_s: float) -> float:
        return min(most_s, max(0.0, self._killed_mono - time.monotonic()) * _SHARE)


async def end_within(task: "asyncio.Task[_T]", seconds: float) -> _T | None:
    """Wait for *task* and return its result; after *seconds* cancel it. None if it was cancelled or failed.

    Cancelled once, the driver asks the server to give up, and waits for an answer that does not come from a frozen one; the second time
    it lets go.
    """
    await asyncio.wait([task], timeout=seconds)
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
    return None if task.cancelled() or task.exception() is not None else task.result()
