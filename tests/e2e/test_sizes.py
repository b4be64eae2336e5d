"""Pools that find their size, beside each other: in one daemon under one budget, and in two daemons on one database."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database

StartDaemon = Callable[..., Daemon]
HANG_S = 90.0
POOL: dict[str, Any] = {"grace": "1s", "lease": "15s", "heartbeat": "1s", "poll": {"min": "250ms", "max": "1s"}, "drain_target": "1s"}


def put(database: Database, queue: str, seconds: float, count: int) -> list[Any]:
    with database.connect() as connection:
        return enqueue(connection, [NewRun("workers.demo.tasks.nap", args=[seconds], queue_name=queue)] * count)


def sizing(daemon: Daemon, pool: str) -> dict[str, Any]:
    snapshots = daemon.answer("status")["pools"][pool]["snapshots"]
    return next((snapshot["sizing"] for snapshot in snapshots.values() if snapshot.get("sizing")), {"size": 0})


def size(daemon: Daemon, pool: str) -> int:
    return int(sizing(daemon, pool)["size"])


def wait_ended(database: Database) -> None:
    def ended() -> bool:
        return database.query("SELECT count(*) FROM task_lane") == [(0,)]

    eventually(ended, timeout=HANG_S, what="every run has ended", interval=0.2)
    assert database.query("SELECT DISTINCT status, attempts FROM task_runs") == [("SUCCESSFUL", 1)]


@pytest.mark.slow
def test_two_pools_share_a_budget_by_weight_and_each_has_its_least(start_daemon: StartDaemon, database: Database) -> None:
    executors = {"min": 1, "max": 10}
    pools = {
        "mail": {**POOL, "queues": ["mail"], "executors": executors, "weight": 2},
        "bulk": {**POOL, "queues": ["bulk"], "executors": executors},
    }
    daemon = start_daemon({**demo_config(database.dsn), "pools": pools, "budget": {"executors": 6}})
    put(database, "mail", 0.5, 150)
    # Alone it has all but the least of the other.
    eventually(lambda: size(daemon, "mail") == 5, timeout=HANG_S, what="mail has what bulk does not use", interval=0.1)
    assert len(daemon.pids("executor")) <= 6
    put(database, "bulk", 0.5, 50)
    eventually(
        lambda: (size(daemon, "mail"), size(daemon, "bulk")) == (4, 2), timeout=HANG_S, what="they have 4 and 2, by weight", interval=0.1
    )
    assert "may have" in " ".join(daemon.answer("explain", "bulk")["lines"])
    # A process more for a moment, where one that has left is not reaped yet.
    assert len(daemon.pids("executor")) <= 7
    wait_ended(database)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"isolation": "fork"}, {"mode": "thread", "slots": 1}], ids=["fork", "thread"])
def test_short_tasks_that_compute_get_no_more_executors_than_there_are_processors_for(
    kind: dict[str, Any], start_daemon: StartDaemon, database: Database
) -> None:
    """Where what they ask for was not seen, as it once was in forks that had ended and in other threads, the size was the most."""
    processors = len(os.sched_getaffinity(0))
    daemon = start_daemon(demo_config(database.dsn, pool={**POOL, **kind, "executors": {"min": 1, "max": 6 * processors}}))
    with database.connect() as connection:
        enqueue(connection, [NewRun("workers.demo.tasks.burn", args=[0.1])] * 60 * processors)
    seen = [1]

    def ended() -> bool:
        seen.append(size(daemon, "default"))
        return database.query("SELECT count(*) FROM task_lane") == [(0,)]

    eventually(ended, timeout=2 * HANG_S, what="every run has ended", interval=0.1)
    # Of a processor each asks for all, the least that is measured of which is taken to be half.
    assert max(seen) <= 2 * processors


@pytest.mark.slow
def test_two_daemons_on_one_database_divide_the_work(start_daemon: StartDaemon, database: Database) -> None:
    pool = {"executors": {"min": 1, "max": 40}, "drain_target": "10s"}
    daemons = [start_daemon(demo_config(database.dsn, pool=pool)) for _ in range(2)]
    put(database, "default", 0.5, 400)
    largest = [1, 1]

    def both_have_grown() -> bool:
        for i, daemon in enumerate(daemons):
            largest[i] = max(largest[i], size(daemon, "default"))
        return min(largest) > 4

    eventually(both_have_grown, timeout=HANG_S, what="both have grown", interval=0.1)
    wait_ended(database)
    # 400 of half a second, for all that is known at first of a second, in ten seconds: 40 in all, and each daemon sees half of them.
    # Alone, each would have taken all forty.
    assert max(sizing(daemon, "default")["size"] for daemon in daemons) <= 30
    assert max(largest) <= 30
