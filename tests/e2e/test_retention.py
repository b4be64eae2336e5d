"""A daemon that was told how long to keep what has ended."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database


@pytest.mark.slow
def test_a_daemon_deletes_what_is_old_and_ends_what_has_expired(
    start_daemon: Callable[..., Daemon], database: Database, tmp_path: Path
) -> None:
    config = demo_config(database.dsn, keeper={"retention": {"successful": "10d"}})
    config["logs_dir"] = str(tmp_path)
    with database.connect() as connection:
        (done,) = enqueue(connection, [NewRun("workers.demo.tasks.noop")])
        (late,) = enqueue(connection, [NewRun("workers.demo.tasks.noop", delay_s=3600, expires_in_s=0.1)])
    daemon = start_daemon(config)
    ended = "SELECT status, errors_json #>> '{-1,kind}' FROM task_runs WHERE result_id = %s"
    eventually(lambda: database.query(ended, late) == [("FAILED", "expired")], timeout=60, what="the late run ends")
    eventually(lambda: database.query(ended, done) == [("SUCCESSFUL", None)], timeout=60, what="the run is done")
    # The next sweep is a minute away; a changed setting brings it at once.
    database.query("UPDATE task_runs SET finished_at = now() - interval '1 h', rev = rev + 1")
    daemon.configure({**config, "keeper": {"retention": {"successful": "1m"}}})
    assert daemon.command("reload").returncode == 0
    eventually(lambda: database.query("SELECT result_id FROM task_runs") == [(late,)], timeout=60, what="the old run is gone")
    assert daemon.stop() == 0
