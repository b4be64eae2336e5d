"""A delayed task starts because its time has come, not because somebody happened to look."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.commands import RunView, result
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database

# Nobody polls while this test runs, so whatever starts has another cause.
NEVER = {"min": "600s", "max": "600s"}


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.05, 2.0], ids=["sooner than the keeper looks", "known to the keeper"])
def test_a_due_task_is_started_by_its_time(start_daemon: Callable[..., Daemon], database: Database, delay_s: float) -> None:
    """Benchmarks say how soon (make bench-wake); here it counts that no poll is needed."""
    start_daemon(demo_config(database.dsn, pool={"poll": NEVER}))
    with database.connect() as connection:
        began = time.monotonic()
        for _ in range(3):
            (run,) = enqueue(connection, [NewRun("workers.demo.tasks.noop", delay_s=delay_s)])
            view = eventually(lambda run=run: _ended(connection, run), timeout=60, interval=0.02, what="the task has ended")
            assert view.started_at >= view.due_at
        assert time.monotonic() - began < 300


@pytest.mark.slow
def test_a_freed_key_starts_its_best_waiter_without_a_look(start_daemon: Callable[..., Daemon], database: Database) -> None:
    start_daemon(demo_config(database.dsn, pool={"poll": NEVER}))
    with database.connect() as connection:
        runs = enqueue(connection, [NewRun("workers.demo.tasks.nap", args=[0.05], lock_key="one", priority=n) for n in range(6)])
        views = [eventually(lambda run=run: _ended(connection, run), timeout=60, interval=0.02, what="the task has ended") for run in runs]
    # The first in line by id began before the others were judged; after it the most urgent comes first.
    starts = sorted(views, key=lambda view: view.started_at)
    assert [view.priority for view in starts[1:]] == sorted((view.priority for view in starts[1:]), reverse=True)
    assert all(one.finished_at <= two.started_at for one, two in pairwise(starts))


def _ended(connection: psycopg.Connection[Any], run: RunId) -> RunView | None:
    view = result(connection, run)
    return view if view is not None and view.finished_at is not None else None
