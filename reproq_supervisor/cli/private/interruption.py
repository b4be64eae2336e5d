"""Ctrl-C and the like: stop the work at once, but never the clean-up that follows."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Raises KeyboardInterrupt for the first of `SIGNALS`, once; whatever follows is clean-up, and later ones are only counted."""

    def __init__(self) -> None:
        self.count = 0
        self._held = False

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
        """Let the block finish: a first signal in it raises at its end."""
        self._held = True
        before = self.count
        try:
            yield
        finally:
            self._held = False
        if before == 0 < self.count:
            raise KeyboardInterrupt

    def _receive(self, _signum: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1 and not self._held:
            raise KeyboardInterrupt
