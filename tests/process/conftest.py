"""Fixtures of the tests with real processes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.supervised import Supervised


@pytest.fixture
def supervised() -> Iterator[Callable[..., Supervised]]:
    """Make supervisors: ``supervised(pools, **settings).start()``. They are ended after the test, and must leave no process.

    Their logs are shown with a failed test.
    """
    with ExitStack() as stack:

        def make(*args: Any, **kwargs: Any) -> Supervised:
            daemon = Supervised(*args, **kwargs)
            stack.callback(daemon.close)
            stack.callback(lambda: sys.stdout.write(daemon.log))
            return daemon

        yield make
