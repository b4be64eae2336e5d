"""Ctrl-C and the like: stop the work at once, but never the clean-up that follows."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Raises KeyboardInterrupt for each of `SIGNALS`; inside `held` it only counts them."""

    def __init__(self) -> None:
        self.count = 0
        self._holds = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Receive the signals for the length of the block."""
        before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish: who waits in it looks at `count` to see that somebody is impatient."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def _receive(self, _signum: int, _frame: FrameType | None) -> None:
        self.count += 1
        if not self._holds:
            raise KeyboardInterrupt
