"""Fixtures of the tests with real processes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.runs import Runs
from tests.support.shard import RunningShard
from tests.support.shared_pool import SharedPool
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


@pytest.fixture
def shard(pool: SharedPool) -> RunningShard:
    """The shard of the module's `pool`, with what it said so far."""
    pool[0].listen()
    return pool[0]


@pytest.fixture
def runs(pool: SharedPool) -> Runs:
    """The runs of the module's `pool`; modules whose tests each have a shard of their own have this fixture, too."""
    return pool[1]
