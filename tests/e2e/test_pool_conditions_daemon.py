"""Conditions of a pool under the whole daemon. As another user than the daemon's, what cannot signal upwards must not outlive it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.somebody import as_somebody_else, open_view, somebody_else, why_nobody_else

StartDaemon = Callable[..., Daemon]


needs_somebody_else = pytest.mark.skipif(why_nobody_else() is not None, reason=str(why_nobody_else()))


@needs_somebody_else
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_left_after_the_supervisor_was_killed(start_daemon: StartDaemon, database: Database, frozen: bool) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"user": "nobody"}), view=open_view())
    Runs(database).add("nap", 600.0, count=2)
    eventually(lambda: database.query("SELECT 1 FROM task_runs WHERE status = 'RUNNING' HAVING count(*) = 2"), what="both run")
    if frozen:  # then only the nursery can end the shard, and that is somebody whom it may not signal
        os.kill(daemon.pids("shard")[0], signal.SIGSTOP)
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait_gone(timeout=20.0)


@needs_somebody_else
def test_a_reload_changes_the_user_by_a_new_generation(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn, pool={"executors": 1}), view=open_view())
    runs = Runs(database)
    assert runs.end_of("tell_conditions").result["users"] == [0, 0, 0]
    daemon.configure(demo_config(database.dsn, pool={"executors": 1, "user": "nobody", "umask": "077"}))
    daemon.command("reload")
    found = runs.end_of("tell_conditions").result
    assert (found["users"], found["umask"]) == ([somebody_else().uid] * 3, 0o077)


def test_a_reload_whose_conditions_cannot_be_met_is_refused_and_says_why(start_daemon: StartDaemon, database: Database) -> None:
    daemon = start_daemon(demo_config(database.dsn))
    before = daemon.pids("executor")
    daemon.configure(demo_config(database.dsn, pool={"limits": {"address_space": "20MiB"}}))
    refused = daemon.command("reload")
    assert refused.returncode != 0
    assert "limits.address_space: expected more than the application takes by itself" in refused.stderr
    assert daemon.pids("executor") == before


def test_a_user_that_the_daemon_may_not_become_is_refused_before_anything_starts() -> None:
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "run"]
    if os.geteuid() == 0:
        if why_nobody_else():
            pytest.skip(str(why_nobody_else()))
        argv = [*as_somebody_else(), *argv]
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        config = Path(folder, "c.yaml")
        config.write_text("database: postgresql://nobody@127.0.0.1:1/nowhere\npools:\n  mail:\n    user: 4242424\n")
        environment = {"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"]}
        done = subprocess.run([*argv, "-c", str(config)], cwd="/", env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 78, done.stderr
    assert "c.yaml:4:" in done.stderr
    assert "expected a daemon that is root, which may become 4242424" in done.stderr
