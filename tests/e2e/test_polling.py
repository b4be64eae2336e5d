"""Without a listener and without prepared statements, as behind a transaction pooler."""

from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

StartDaemon = Callable[..., Daemon]
IDLE = """SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name LIKE 'reproq shard%' AND state = 'idle'
            AND query LIKE '%reproq_brief_cycle%'"""


def put(database: Database, **parts: Any) -> int:
    with database.connect() as connection:
        (run,) = enqueue(connection, [NewRun("workers.demo.tasks.noop", **parts)])
    return run


def is_done(database: Database, run: int) -> Callable[[], bool]:
    return lambda: database.query("SELECT status FROM task_runs WHERE result_id = %s", run) == [("SUCCESSFUL",)]


@pytest.mark.parametrize("listen", [False, True])
def test_a_shard_that_found_nothing_looks_again_by_itself(start_daemon: StartDaemon, database: Database, listen: bool) -> None:
    start_daemon(demo_config(database.dsn, store={"listen": listen}, pool={"poll": {"min": "300ms", "max": "600ms"}}))
    eventually(lambda: database.query(IDLE) == [(1,)], what="the shard has looked once")
    for _ in range(3):
        run = put(database)
        database.query("DELETE FROM reproq_queue_idle")  # no note will tell of the next one
        eventually(is_done(database, run), timeout=5, what="the run is found by polling")


def test_nothing_depends_on_the_session_when_told_so(start_daemon: StartDaemon, own_cluster: Cluster, own_database: Database) -> None:
    own_database.query(f"ALTER DATABASE {own_database.name} SET log_statement = 'all'")
    daemon = start_daemon(demo_config(own_database.dsn, store={"listen": False, "prepare": False}))
    runs = [put(own_database), put(own_database, delay_s=1)]
    for run in runs:
        eventually(is_done(own_database, run), what="the run is done")
    assert daemon.stop() == 0
    said = own_cluster.log.read_text(errors="replace")
    assert "reproq_brief_cycle" in said
    assert "reproq_wake_due" in said
    assert "execute <unnamed>" in said
    assert "execute _pg3" not in said, "a statement was prepared"
    assert "LISTEN" not in said
