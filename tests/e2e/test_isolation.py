"""A pool that changes how much of a process a task finds used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database

StartDaemon = Callable[..., Daemon]


def answer_of(database: Database, task: str) -> Any:
    with database.connect(autocommit=True) as connection:
        (number,) = enqueue(connection, [NewRun(task)])
    found = eventually(lambda: database.query("SELECT return_json FROM task_runs WHERE result_id = %s AND status = 'SUCCESSFUL'", number))
    return found[0][0]


def test_a_reload_puts_every_isolation_in_the_place_of_another_unless_it_cannot_start(
    start_daemon: StartDaemon, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text("calls = 0\ndef count():\n    global calls\n    calls += 1\n    return calls\n")

    def configuration(**pool: Any) -> dict[str, Any]:
        config = demo_config(database.dsn, pool={"executors": 1, **pool})
        config["app"] = {"path": [str(tmp_path)], "preload": ["shop"], "allowed_task_modules": ["shop."]}
        return config

    daemon = start_daemon(configuration())
    assert [answer_of(database, "shop.count") for _ in range(2)] == [1, 2]

    daemon.configure(configuration(isolation="exec", exec={"command": ["/nowhere/at/all"]}))
    refused = daemon.command("reload")
    assert refused.returncode == 1
    assert "exec.command: expected a program that can be run, got '/nowhere/at/all'" in refused.stderr
    assert answer_of(database, "shop.count") == 3

    daemon.configure(configuration(isolation="fork"))
    daemon.answer("reload")
    assert [answer_of(database, "shop.count") for _ in range(2)] == [1, 1]
    assert "each in a fork of its own" in daemon.command("explain", "default").stdout

    daemon.configure(configuration(isolation="exec"))
    daemon.answer("reload")
    assert [answer_of(database, "shop.count") for _ in range(2)] == [1, 1]
    assert "each in a program of its own" in daemon.command("explain", "default").stdout
