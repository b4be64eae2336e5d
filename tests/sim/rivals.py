"""Sizing rules that others use, as far as they are published, to compare ours with: Celery's autoscaler and uWSGI's busyness."""

from reproq_supervisor.core.policy.sizing import Load


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
    """One more while most are busy, one fewer after ten quiet windows; growing again too soon makes it slower to shrink."""

    def __init__(self, least: int, most: int, window_s: float = 10.0) -> None:
        self._least, self._most, self._window_s = least, most, window_s
        self._busy: list[float] = []
        self._until = window_s
        self._multiplier, self._quiet, self._between, self._shrunk_at = 10, 0, 0, -1e9

    def __call__(self, now: float, load: Load, size: int) -> int:
        self._busy.append(load.running / size if size else 1.0)
        if now < self._until:
            return max(size, self._least)
        busy = 100.0 * sum(self._busy) / len(self._busy)
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
