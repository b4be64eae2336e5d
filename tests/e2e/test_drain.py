"""Stopping: what runs may finish or is given back, no attempt is counted, no signal is lost."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.trail import read_trail

StartDaemon = Callable[..., Daemon]


def put(database: Database, task: str, count: int, *args: object, **keys: object) -> None:
    with database.connect(autocommit=True) as connection:
        enqueue(connection, [NewRun(f"workers.demo.tasks.{task}", args=list(args), **keys) for _ in range(count)])  # type: ignore[arg-type]


def put_trails(database: Database, trail: Path, count: int, seconds: float) -> None:
    with database.connect(autocommit=True) as connection:
        enqueue(connection, [NewRun("workers.demo.tasks.leave_trail", args=[str(trail), f"t{n}", seconds]) for n in range(count)])


def running(trail: Path) -> int:
    return len([run for runs in read_trail(trail).values() for run in runs if not run.ended]) if trail.exists() else 0


def test_term_lets_running_tasks_finish_and_gives_the_backlog_back(start_daemon: StartDaemon, database: Database, tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 8}))
    put_trails(database, trail, 100, 1.0)
    eventually(lambda: running(trail) == 8, what="eight tasks run")
    started = set(read_trail(trail))
    assert daemon.stop() == 0
    daemon.wait_gone()
    by_status = dict(database.query("SELECT status, count(*) FROM task_runs GROUP BY 1"))
    assert by_status["SUCCESSFUL"] >= len(started)
    assert by_status["SUCCESSFUL"] + by_status["READY"] == 100
    assert database.query("SELECT DISTINCT attempts FROM task_runs WHERE status = 'READY'") == [(0,)]
    assert database.query("SELECT DISTINCT state, attempts, leased_by IS NULL FROM task_lane") == [("ready", 0, True)]
    assert all(len(runs) == 1 and runs[0].ended for runs in read_trail(trail).values())


def test_tasks_that_outlast_the_shutdown_are_asked_then_killed_and_not_counted(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 2, "grace": "1s"}, shutdown_timeout="3s"))
    put(database, "hang", 1)
    put(database, "hang_stubbornly", 1)
    eventually(lambda: daemon.answer("status"), what="status answers")
    eventually(lambda: database.query("SELECT count(*) FROM task_runs WHERE status = 'RUNNING'") == [(2,)], what="both run")
    assert daemon.stop() == 0
    daemon.wait_gone()
    assert database.query("SELECT DISTINCT status, attempts, errors_json::text FROM task_runs") == [("READY", 0, "[]")]


def test_a_second_interrupt_does_not_wait_for_running_tasks(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 2, "grace": "500ms"}, shutdown_timeout="10m"))
    put(database, "hang", 2)
    eventually(lambda: database.query("SELECT count(*) FROM task_runs WHERE status = 'RUNNING'") == [(2,)], what="both run")
    daemon.signal(signal.SIGINT)
    daemon.wait_noted("STOPPING=1")
    daemon.signal(signal.SIGINT)
    # The drain alone would take ten minutes.
    assert daemon.wait_exit(60) == 0
    daemon.wait_gone()
    assert database.query("SELECT DISTINCT status, attempts FROM task_runs") == [("READY", 0)]


@pytest.mark.parametrize("delay_ms", [0, 20, 60, 120, 200, 300, 450, 700])
def test_term_at_any_moment_of_the_start_ends_everything(delay_ms: int, start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn), until_ready=False)
    eventually(lambda: daemon.processes(), what="it has begun")
    end = os.times().elapsed + delay_ms / 1000
    eventually(lambda: os.times().elapsed >= end, interval=0.005, what="the moment has come")
    daemon.signal(signal.SIGTERM)
    # Before the interpreter has installed anything, the default action ends it: nothing was started by then.
    assert daemon.wait_exit(60) in (0, -signal.SIGTERM)
    daemon.wait_gone()


def test_term_during_the_import_of_the_application_ends_everything(start_daemon: StartDaemon, database: Database, tmp_path: Path) -> None:
    (tmp_path / "slow_application.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'importing')!r}).touch()\ntime.sleep(600)\n"
    )
    config = demo_config(database.dsn)
    config["app"] = {"path": [str(tmp_path), str(CHECKOUT)], "preload": ["slow_application"], "allowed_task_modules": ["workers.demo."]}
    daemon = start_daemon(config, until_ready=False)
    eventually((tmp_path / "importing").exists, timeout=30, what="the import has begun")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(60) == 0
    daemon.wait_gone()
