"""The only poller of the test suite."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, timeout: float = 60.0, what: str = "", interval: float = 0.02) -> T:
    """Call *probe* until it returns something truthy, and return that.

    Raises:
      AssertionError: *timeout* seconds passed; the message has the last value or error seen.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            value = probe()
            if value:
                return value
            last = value
        except (AssertionError, OSError, LookupError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what or probe}: expected within {timeout} s, last seen {last!r}")
        time.sleep(interval)
