"""A stop ends within its time, whoever is frozen, and the frozen are killed. Exact times are in `tests/unit/test_core_ending.py`."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.living import living
from tests.support.postgres import Cluster, Database

SHUTDOWN_S = 4.0
SLACK_S = 3.0
"""For the exit of an interpreter on a machine that has other things to do."""

StartDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow


def config(dsn: str) -> dict[str, Any]:
    # Deadlines of liveness so long that only the stop itself can find out who is frozen.
    return demo_config(dsn, pool={"lease": "600s", "heartbeat": "60s", "timeout": "600s"}, shutdown_timeout=f"{SHUTDOWN_S:g}s")


def run_one(database: Database, task: str) -> None:
    with database.connect(autocommit=True) as connection:
        enqueue(connection, [NewRun(f"workers.demo.tasks.{task}")])
    eventually(lambda: database.query("SELECT status FROM task_runs") == [("RUNNING",)], timeout=60, what="the task runs")


def assert_stops_in_time(daemon: Daemon) -> None:
    began = time.monotonic()
    assert daemon.stop() == 0
    took = time.monotonic() - began
    assert took <= SHUTDOWN_S + SLACK_S, f"{took:.1f} s: {daemon.log[-3000:]}"
    daemon.wait_gone()


@pytest.mark.parametrize(
    "kinds", [("shard",), ("keeper",), ("nursery",), ("executor",), ("shard", "nursery", "keeper", "executor")], ids="+".join
)
def test_a_stop_ends_in_time_with_frozen_processes(kinds: tuple[str, ...], start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(config(database.dsn))
    run_one(database, "hang_stubbornly")
    for pid in [pid for kind in kinds for pid in daemon.pids(kind)]:
        os.kill(pid, signal.SIGSTOP)
    assert_stops_in_time(daemon)


def test_a_stop_ends_in_time_with_a_frozen_database(start_daemon: StartDaemon, own_cluster: Cluster, own_database: Database) -> None:
    daemon = start_daemon(config(own_database.dsn))
    run_one(own_database, "hang_stubbornly")
    own_cluster.freeze()
    try:
        assert_stops_in_time(daemon)
    finally:
        own_cluster.thaw()


def test_a_stop_ends_in_time_with_a_frozen_database_of_its_own(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(config("embedded"))
    (server,) = [process for pid in daemon.pids("guard") for process in psutil.Process(pid).children()]
    everything = [server, *server.children()]
    for process in everything:
        process.suspend()
    assert_stops_in_time(daemon)
    assert not living(everything)
