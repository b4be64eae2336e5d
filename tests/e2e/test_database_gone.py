"""The database goes away and comes back: what is ours goes on, what is not stops, and everybody survives."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database
from tests.support.trail import assert_all_ended_once, read_trail

StartDaemon = Callable[..., Daemon]


def put_trails(database: Database, trail: Path, count: int, seconds: float) -> None:
    with database.connect(autocommit=True) as connection:
        enqueue(connection, [NewRun("workers.demo.tasks.leave_trail", args=[str(trail), f"t{n}", seconds]) for n in range(count)])


def started(trail: Path) -> int:
    return len(read_trail(trail)) if trail.exists() else 0


def all_done(database: Database, count: int) -> Callable[[], bool]:
    return lambda: database.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'") == [(count,)]


def test_results_of_an_outage_are_written_when_the_database_returns(
    start_daemon: StartDaemon, own_cluster: Cluster, own_database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(demo_config(own_database.dsn, pool={"executors": 2, "lease": "60s"}))
    put_trails(own_database, trail, 2, 3.0)
    eventually(lambda: started(trail) == 2, what="both tasks run")
    before = daemon.processes()
    # A claim does not wait for the disk: one that a crash forgot would rightly run again.
    own_database.query("CHECKPOINT")
    own_cluster.kill()
    eventually(lambda: all(runs[0].ended for runs in read_trail(trail).values()), timeout=30, what="both end while it is away")
    status: Any = daemon.answer("status")
    assert "down" in str(status).lower() or "database" in str(status).lower()
    explained = daemon.command("explain", "default").stdout
    assert "database" in explained
    own_cluster.start()
    eventually(all_done(own_database, 2), timeout=60, what="both results are stored")
    executions = assert_all_ended_once(own_database, trail, 2)
    assert all(len(runs) == 1 for runs in executions.values())
    assert own_database.query("SELECT DISTINCT attempts FROM task_runs") == [(1,)]
    assert daemon.processes() == before


@pytest.mark.slow
def test_results_are_kept_though_their_leases_ended_while_the_database_was_away(
    start_daemon: StartDaemon, own_cluster: Cluster, own_database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    start_daemon(demo_config(own_database.dsn, pool={"executors": 2, "lease": "15s"}))
    put_trails(own_database, trail, 2, 2.0)
    eventually(lambda: started(trail) == 2, what="both tasks run")
    own_database.query("CHECKPOINT")
    own_cluster.kill()
    expired = time.monotonic() + 16
    eventually(lambda: all(runs[0].ended for runs in read_trail(trail).values()), timeout=30, what="both end while it is away")
    eventually(lambda: time.monotonic() >= expired, timeout=30, interval=0.2, what="their leases have ended")
    own_cluster.start()
    eventually(all_done(own_database, 2), timeout=120, what="both results are stored")
    assert all(len(runs) == 1 for runs in assert_all_ended_once(own_database, trail, 2).values())
    assert own_database.query("SELECT DISTINCT attempts, errors_json FROM task_runs") == [(1, [])]


def test_tasks_stop_when_their_lease_cannot_be_renewed_and_run_again_later(
    start_daemon: StartDaemon, own_cluster: Cluster, own_database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(demo_config(own_database.dsn, pool={"executors": 2, "lease": "10s"}))
    put_trails(own_database, trail, 2, 20.0)
    eventually(lambda: started(trail) == 2, what="both tasks run")
    supervisor, executors = daemon.pids("supervisor"), set(daemon.pids("executor"))
    own_cluster.kill()
    eventually(lambda: not executors & set(daemon.pids("executor")), timeout=60, what="the executors were killed with their leases")
    assert not any(runs[0].ended for runs in read_trail(trail).values())
    own_cluster.start()
    eventually(all_done(own_database, 2), timeout=120, what="both are done")
    executions = assert_all_ended_once(own_database, trail, 2)
    assert all(len(runs) == 2 for runs in executions.values())
    assert daemon.pids("supervisor") == supervisor


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_two_minutes_without_a_database_are_survived_by_every_pool(
    start_daemon: StartDaemon, own_cluster: Cluster, own_database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(demo_config(own_database.dsn, pool={"executors": 4, "lease": "30s"}))
    put_trails(own_database, trail, 200, 0.3)
    eventually(lambda: started(trail) >= 8, what="tasks run")
    kinds = ("supervisor", "keeper", "shard", "nursery")
    before = {kind: daemon.pids(kind) for kind in kinds}
    own_cluster.kill()
    away = time.monotonic() + 120
    eventually(lambda: time.monotonic() >= away, timeout=150, interval=0.5, what="two minutes have passed")
    assert {kind: daemon.pids(kind) for kind in kinds} == before
    own_cluster.start()
    eventually(all_done(own_database, 200), timeout=120, what="all are done")
    assert_all_ended_once(own_database, trail, 200)
