"""Every kind of process killed and frozen while a backlog is worked off: nothing lost, nothing doubled, nothing blamed on the innocent.

The trail that the tasks leave (tests/support/trail.py) says how often each ran and when; the database says what was stored.
"""

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database
from tests.support.trail import assert_all_ended_once, read_trail

TASKS = 2000
SECONDS = 0.05
DONE_WITHIN_S = 400.0

StartDaemon = Callable[..., Daemon]

PROCESS: dict[str, Any] = {"executors": 4}
THREAD: dict[str, Any] = {"executors": 2, "mode": "thread", "slots": 4}
ASYNC: dict[str, Any] = {"executors": 2, "mode": "async", "slots": 4}
FORK: dict[str, Any] = {"executors": 4, "isolation": "fork"}
EXEC: dict[str, Any] = {"executors": 4, "isolation": "exec"}
each_mode = pytest.mark.parametrize("pool", [PROCESS, THREAD, ASYNC], ids=["process", "thread", "async"])
"""The most telling accidents happen to every kind of executor: tests take its settings as *pool*."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def slots(pool: dict[str, Any]) -> int:
    """Tasks that one executor runs at once."""
    return int(pool.get("slots", 1))


def backlog(
    database: Database, trail: Path, tasks: int = TASKS, seconds: float = SECONDS, *, pool: dict[str, Any] = PROCESS, **keys: Any
) -> None:
    trail.touch()
    trail.chmod(0o666)
    task = "workers.demo.tasks.leave_trail" + ("_in_coroutine" if pool is ASYNC else "")
    runs = [NewRun(task, args=[str(trail), f"t{n}", seconds], **keys) for n in range(tasks)]
    with database.connect(autocommit=True) as connection:
        enqueue(connection, runs)


def done(database: Database) -> int:
    ((count,),) = database.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'")
    return int(count)


def wait_done(database: Database, count: int) -> None:
    eventually(lambda: done(database) >= count, timeout=DONE_WITHIN_S, interval=0.1, what=f"{count} runs are done (now {done(database)})")


def wait_going_on(database: Database, tasks: int = 40) -> None:
    """Wait until work goes on after an accident."""
    target = min(TASKS, done(database) + tasks)
    wait_done(database, target)


def config(database: Database, **pool: Any) -> dict[str, Any]:
    return demo_config(database.dsn, pool={"executors": 4, "grace": "1s", "lease": "15s", "timeout": "10s", **pool})


def kill(daemon: Daemon, *kinds: str, signum: signal.Signals = signal.SIGKILL) -> list[int]:
    """Signal one process of each kind, as close together as we can; return their pids."""
    pids = [eventually(lambda kind=kind: daemon.pids(kind), what=f"a {kind} runs")[0] for kind in kinds]  # type: ignore[misc]
    for pid in pids:
        os.kill(pid, signum)
    return pids


def attempts(database: Database) -> dict[int, int]:
    return dict(database.query("SELECT attempts, count(*) FROM task_runs GROUP BY 1"))


@each_mode
def test_each_kind_killed_in_turn_loses_and_doubles_nothing(
    pool: dict[str, Any], start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database, **pool))
    backlog(database, trail, pool=pool)
    wait_going_on(database)
    crashes = 0
    for kind in ("executor", "keeper", "nursery", "executor", "shard"):
        (pid,) = kill(daemon, kind)
        eventually(lambda pid=pid: pid not in daemon.processes(), what=f"the killed {kind} is reaped")
        wait_going_on(database)
        crashes += kind == "executor"
    wait_done(database, TASKS)
    executions = assert_all_ended_once(database, trail, TASKS)
    # Only runs whose own executor was killed have an attempt against them; those that a dying shard or nursery takes along have none.
    counted = attempts(database)
    assert set(counted) <= ({1, 2, 3} if slots(pool) > 1 else {1, 2})
    assert counted.get(2, 0) + 2 * counted.get(3, 0) <= crashes * slots(pool)
    kinds = {kind for (kind,) in database.query("SELECT jsonb_array_elements(errors_json)->>'kind' FROM task_runs")}
    assert kinds <= {"worker_crashed"}
    repeated = [name for name, runs in executions.items() if len(runs) > 1]
    assert len(repeated) <= crashes * slots(pool) + 2 * pool["executors"] * slots(pool), "the work of the survivors was touched"


@pytest.mark.parametrize(("pool", "tasks"), [(FORK, 400), (EXEC, 120)], ids=["fork", "exec"])
def test_each_kind_killed_in_turn_beside_processes_for_one_task_loses_and_doubles_nothing(
    pool: dict[str, Any], tasks: int, start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database, **pool))
    backlog(database, trail, tasks=tasks)
    for kind in ("executor", "nursery", "executor", "shard"):
        wait_done(database, min(tasks, done(database) + 10))
        (pid,) = kill(daemon, kind)
        eventually(lambda pid=pid: pid not in daemon.processes(), what=f"the killed {kind} is reaped")
    wait_done(database, tasks)
    executions = assert_all_ended_once(database, trail, tasks)
    pids = [run.id.partition("-")[0] for runs in executions.values() for run in runs]
    assert len(set(pids)) > tasks * 9 // 10, "numbers may come again, but not so soon"
    # One that waited for work, when it was killed, cost nobody an attempt.
    counted = attempts(database)
    assert set(counted) <= {1, 2}
    assert counted.get(2, 0) <= 2


def test_a_killed_executor_costs_its_own_task_one_attempt_and_nobody_else_anything(
    start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database))
    backlog(database, trail, tasks=40, seconds=0.5)
    eventually(lambda: len(read_trail(trail)) >= 4, what="four tasks run")
    victim = daemon.pids("executor")[0]
    os.kill(victim, signal.SIGKILL)
    wait_done(database, 40)
    executions = assert_all_ended_once(database, trail, 40)
    repeated = {name: runs for name, runs in executions.items() if len(runs) > 1}
    assert len(repeated) == 1
    ((first, second),) = repeated.values()
    assert first.id.startswith(f"{victim}-")
    assert not second.id.startswith(f"{victim}-")
    ((errors,),) = database.query("SELECT errors_json FROM task_runs WHERE attempts = 2")
    assert [(error["kind"], error["signal"]) for error in errors] == [("worker_crashed", "SIGKILL")]
    assert attempts(database) == {1: 39, 2: 1}


@pytest.mark.parametrize("pool", [THREAD, ASYNC], ids=["thread", "async"])
def test_a_killed_executor_costs_each_of_its_tasks_one_attempt_and_nobody_else_anything(
    pool: dict[str, Any], start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database, **pool))
    backlog(database, trail, tasks=40, seconds=0.5, pool=pool)
    eventually(lambda: len(read_trail(trail)) >= 8, what="eight tasks run")
    victim = daemon.pids("executor")[0]
    os.kill(victim, signal.SIGKILL)
    wait_done(database, 40)
    executions = assert_all_ended_once(database, trail, 40)
    repeated = [runs for runs in executions.values() if len(runs) > 1]
    assert 1 <= len(repeated) <= slots(pool)
    assert all(len(runs) == 2 and runs[0].id.startswith(f"{victim}-") for runs in repeated)
    crashed = {row[0]: row[1] for row in database.query("SELECT result_id, errors_json FROM task_runs WHERE attempts = 2")}
    assert len(repeated) <= len(crashed) <= slots(pool)  # one that had taken its token may not have come to its first line
    for run, errors in crashed.items():
        assert [(error["kind"], error["signal"]) for error in errors] == [("worker_crashed", "SIGKILL")]
        assert {run, *errors[0].get("shared_with", [])} == set(crashed)
    assert attempts(database) == {1: 40 - len(crashed), 2: len(crashed)}


@each_mode
def test_a_killed_shard_gives_its_work_to_its_successor_long_before_the_lease_ends(
    pool: dict[str, Any], start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database, lease="600s", **pool))
    backlog(database, trail, tasks=20, seconds=0.5, pool=pool)
    eventually(lambda: len(read_trail(trail)) >= 4, what="four tasks run")
    kill(daemon, "shard")
    # With a lease of ten minutes, only the release of the dead worker's leases can let these end in time.
    wait_done(database, 20)
    assert_all_ended_once(database, trail, 20)
    assert attempts(database) == {1: 20}
    assert "lease_expiry" not in json.dumps(database.query("SELECT errors_json FROM task_runs"))


@pytest.mark.parametrize(
    "kinds", [("executor", "shard"), ("nursery", "shard"), ("keeper", "shard"), ("executor", "nursery"), ("executor", "keeper")]
)
def test_two_kinds_killed_at_once_lose_and_double_nothing(
    kinds: tuple[str, str], start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database))
    backlog(database, trail, tasks=300)
    wait_done(database, 40)
    kill(daemon, *kinds)
    wait_done(database, 300)
    assert_all_ended_once(database, trail, 300)


@pytest.mark.parametrize("other", [(), ("executor",), ("shard",), ("keeper",)])
def test_the_database_killed_loses_and_doubles_nothing(
    other: tuple[str, ...], start_daemon: StartDaemon, own_cluster: Cluster, own_database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(own_database))
    backlog(own_database, trail, tasks=300)
    wait_done(own_database, 40)
    supervisor = daemon.pids("supervisor")
    own_cluster.kill()
    if other:
        kill(daemon, *other)
    own_cluster.start()
    wait_done(own_database, 300)
    assert daemon.pids("supervisor") == supervisor
    assert_all_ended_once(own_database, trail, 300)


@pytest.mark.parametrize("kind", ["executor", "nursery", "shard", "keeper"])
def test_a_frozen_process_is_replaced_and_nothing_is_lost_or_doubled(
    kind: str, start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database))
    backlog(database, trail, tasks=400)
    wait_done(database, 40)
    (pid,) = kill(daemon, kind, signum=signal.SIGSTOP)
    eventually(lambda: pid not in daemon.processes(), timeout=60, what=f"the frozen {kind} is killed")
    wait_done(database, 400)
    assert_all_ended_once(database, trail, 400)


def test_a_whole_frozen_daemon_cannot_store_anything_after_its_leases_ended(
    start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    """Frozen as a whole it can kill nothing in time: there the fence protects the rows, and only they are promised."""
    trail = tmp_path / "trail"
    first = start_daemon(config(database, lease="10s", heartbeat="1s"))
    backlog(database, trail, tasks=60, seconds=1.0, max_attempts=9)
    eventually(lambda: len(read_trail(trail)) >= 4, what="four tasks run")
    frozen = list(first.processes())
    for pid in sorted(frozen):
        os.kill(pid, signal.SIGSTOP)
    start_daemon(config(database, lease="10s", heartbeat="1s"))
    wait_done(database, 60)
    stored = dict(database.query("SELECT result_id, return_json#>>'{}' FROM task_runs"))
    for pid in frozen:
        # Those that are awake already may have ended this one: its lease is long over.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    # The thawed daemon finds out by its next word to the database; what it ends up saying changes nothing.
    eventually(lambda: first.answer("status"), timeout=30, what="the thawed daemon answers")
    daemon_totals = eventually(
        lambda: [pool for pool in first.answer("status")["pools"].values() if pool], timeout=30, what="its pools report"
    )
    assert daemon_totals
    assert dict(database.query("SELECT result_id, return_json#>>'{}' FROM task_runs")) == stored


@each_mode
def test_a_frozen_shard_stops_running_tasks_before_a_second_daemon_may_have_them(
    pool: dict[str, Any], start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    first = start_daemon(config(database, lease="10s", heartbeat="1s", **pool))
    backlog(database, trail, tasks=24, seconds=2.0, max_attempts=9, pool=pool)
    eventually(lambda: len(read_trail(trail)) >= 4, what="four tasks run")
    # Supervisor and shard: nobody but the nursery is left to keep the promise.
    kill(first, "supervisor", "shard", signum=signal.SIGSTOP)
    start_daemon(config(database, lease="10s", heartbeat="1s", **pool))
    wait_done(database, 24)
    assert_all_ended_once(database, trail, 24)


@pytest.mark.parametrize("kind", ["shard", "keeper", "nursery", "executor"])
def test_nothing_is_alive_after_the_supervisor_was_killed_while_a_child_was_frozen(
    kind: str, start_daemon: StartDaemon, database: Database
) -> None:
    """A frozen process does not act on its parent's death; those above and below it do."""
    daemon = start_daemon(config(database, timeout="10m", lease="600s", heartbeat="60s"))
    with database.connect(autocommit=True) as connection:
        enqueue(connection, [NewRun("workers.demo.tasks.leave_grandchild"), NewRun("workers.demo.tasks.hang_stubbornly")])
    eventually(lambda: daemon.pids("other"), what="an escaped grandchild runs")
    kill(daemon, kind, signum=signal.SIGSTOP)
    kill(daemon, "supervisor")
    daemon.wait_exit()
    daemon.wait_gone(timeout=20)


@pytest.mark.parametrize("pool", [PROCESS, FORK, EXEC], ids=["reuse", "fork", "exec"])
def test_nothing_is_alive_after_the_supervisor_was_killed(
    pool: dict[str, Any], start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database, **pool))
    with database.connect(autocommit=True) as connection:
        enqueue(connection, [NewRun("workers.demo.tasks.leave_grandchild") for _ in range(4)])
    backlog(database, trail, tasks=40, seconds=0.5)
    eventually(lambda: len(read_trail(trail)) >= 4, what="four tasks run")
    if pool is PROCESS:  # elsewhere it ends with its task
        eventually(lambda: daemon.pids("other"), what="an escaped grandchild runs")
    kill(daemon, "supervisor")
    daemon.wait_exit()
    daemon.wait_gone(timeout=20)
    # What it held was given back on the way out: the next daemon need not wait for the leases to end.
    assert database.query("SELECT count(*) FROM task_lane WHERE state = 'running'") == [(0,)]
    start_daemon(config(database, lease="600s"))
    wait_done(database, 44)
    assert set(attempts(database)) == {1}


def test_a_daemon_that_died_as_a_whole_leaves_its_work_to_the_next_one_at_once(
    start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(config(database, lease="600s", heartbeat="60s", timeout="600s"))
    backlog(database, trail, tasks=24, seconds=0.5)
    eventually(lambda: len(read_trail(trail)) >= 4, what="four tasks run")
    # Frozen first, so that nobody can give anything back on the way out.
    everybody = list(daemon.processes())
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    for pid in everybody:
        os.kill(pid, signal.SIGKILL)
    daemon.wait_exit()
    daemon.wait_gone(timeout=20)
    assert database.query("SELECT count(*) FROM task_lane WHERE state = 'running'") >= [(4,)]
    daemon.start()
    # With a lease of ten minutes, only the marks of the dead can let these end in time.
    wait_done(database, 24)
    assert set(attempts(database)) == {1}
    marks = daemon.folder / ".reproq/workers"
    eventually(lambda: len(list(marks.iterdir())) == 1, what="only the mark of the living shard is left")
