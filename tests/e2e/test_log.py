"""The log of a daemon: moved away and opened again by all of its processes, and asked for what they do."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database

StartDaemon = Callable[..., Daemon]
WAIT_S = 60.0


def logs_to(pid: int) -> Path:
    return Path(f"/proc/{pid}/fd/2").readlink()


def test_every_process_follows_the_log_and_writes_its_stacks_there(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    with database.connect(autocommit=True) as connection:
        enqueue(connection, [NewRun("workers.demo.tasks.hang")])
    eventually(lambda: database.query("SELECT status FROM task_runs") == [("RUNNING",)], timeout=WAIT_S, what="a task runs")
    followers = [pid for kind in ("supervisor", "keeper", "shard", "nursery") for pid in daemon.pids(kind)]
    assert len(followers) == 4
    assert {logs_to(pid) for pid in followers} == {daemon.log_path}
    moved = daemon.log_path.with_name("daemon.log.1")
    daemon.log_path.rename(moved)
    daemon.signal(signal.SIGUSR1)
    eventually(lambda: {logs_to(pid) for pid in followers} == {daemon.log_path}, timeout=WAIT_S, what="all have opened it again")
    (executor, *_) = daemon.pids("executor")
    os.kill(executor, signal.SIGKILL)
    eventually(lambda: executor not in daemon.pids("executor") and daemon.pids("executor"), timeout=WAIT_S, what="another executor")
    daemon.signal(signal.SIGUSR2)
    for said in ("state of keeper:", "state of default/0:", "in dump_lines", "keeper/keeper.py", "pool/shard.py", "executor/nursery.py"):
        eventually(lambda said=said: said in daemon.log, timeout=WAIT_S, what=f"{said} is written")  # type: ignore[misc]
