"""Sizing rules that others use, as far as they are published, to compare ours with.

For executors Celery's autoscaler and uWSGI's busyness; for slots two limits of concurrency that follow the times of requests.
"""

import math

from reproq_supervisor.core.policy.sizing import Load
from reproq_supervisor.core.policy.slots import SlotLoad


class CeleryLike:
    """As many as there are tasks taken; up at once, down when there was no growth for half a minute."""

    def __init__(self, least: int, most: int, keepalive_s: float = 30.0) -> None:
        self._least, self._most, self._keepalive_s = least, most, keepalive_s
        self._grew_at = -keepalive_s

    def __call__(self, now: float, load: Load, size: int) -> int:
        target = min(self._most, max(self._least, load.waiting + load.running))
        if target > size:
            self._grew_at = now
            return target
        if target < size and now - self._grew_at > self._keepalive_s:
            return target
        return size


class UwsgiLike:
    """One more while most are busy, one fewer after ten quiet windows; growing again too soon makes it slower to shrink.

    All as it is set by itself: windows of `cheaper-overload`, 3 s (core/init.c), a multiplier of 10, a penalty of 2.
    """

    def __init__(self, least: int, most: int, window_s: float = 3.0) -> None:
        self._least, self._most, self._window_s = least, most, window_s
        self._busy: list[float] = []
        self._until = window_s
        self._multiplier, self._quiet, self._between, self._shrunk_at = 10, 0, 0, -1e9

    def __call__(self, now: float, load: Load, size: int) -> int:
        self._busy.append(load.running / size if size else 1.0)
        if now < self._until:
            return max(size, self._least)
        busy = 100.0 * math.fsum(self._busy) / len(self._busy)  # the same on every Python, as `sum` is not
        self._busy, self._until = [], now + self._window_s
        if busy > 50:
            self._quiet = 0
            if now - self._shrunk_at < self._multiplier * self._window_s:
                self._multiplier += 2
            return min(self._most, size + 1)
        if busy < 25:
            self._quiet += 1
            self._between = 0
            if self._quiet >= self._multiplier:
                self._quiet = 0
                self._multiplier = max(10, self._multiplier - 1)
                self._shrunk_at = now
                return max(self._least, size - 1)
            return size
        self._between += 1
        if self._between >= 3:
            self._quiet = self._between = 0
        return size


class LatencyAimd:
    """One more while all of it is used and runs are quick, a tenth fewer when they take so many times as long as the fastest ones."""

    def __init__(self, least: int, most: int, factor: float = 2.5) -> None:
        self._least, self._most, self._factor = least, most, factor
        self._limit, self._fastest_s = float(least), math.inf

    def __call__(self, now: float, load: SlotLoad, took_s: float) -> int:
        if took_s > 0:
            self._fastest_s = min(self._fastest_s, took_s)
            if took_s > self._factor * self._fastest_s:
                self._limit = max(self._least, self._limit * 0.9)
            elif load.is_full:
                self._limit = min(self._most, self._limit + 1)
        return int(self._limit)


class Gradient2Like:
    """Follows the ratio of the long average of the times that runs take to the last one, and lets a queue of four be."""

    def __init__(self, least: int, most: int, windows: int = 600) -> None:
        self._least, self._most, self._weight = least, most, 2.0 / (windows + 1)
        self._limit, self._long_s = float(least), 0.0

    def __call__(self, now: float, load: SlotLoad, took_s: float) -> int:
        if took_s > 0:
            self._long_s = took_s if not self._long_s else self._long_s + self._weight * (took_s - self._long_s)
            if self._long_s > 2 * took_s:
                self._long_s *= 0.95
            if load.is_full:
                gradient = max(0.5, min(1.0, 1.5 * self._long_s / took_s))
                self._limit = max(self._least, min(self._most, 0.8 * self._limit + 0.2 * (gradient * self._limit + 4)))
        return int(self._limit)
