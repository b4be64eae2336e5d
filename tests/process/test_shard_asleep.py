"""A real shard goes to sleep, and is told of what comes then."""

from reproq_supervisor.store.controls import set_limit
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.runs import DEMO, Runs
from tests.support.shard import running_shard

LATER = 1e-9
"""Tokens a second: none comes while a test runs."""


def test_a_shard_sleeps_beside_runs_that_wait_for_tokens(own_database: Database) -> None:
    runs = Runs(own_database)
    with own_database.connect() as connection:
        set_limit(connection, f"task:{DEMO}echo", LATER, 1)
        connection.execute("UPDATE rate_limits SET current_tokens = 0 WHERE key LIKE 'task:%'")
    (waiting,) = runs.add("echo")
    with running_shard(own_database) as shard:
        shard.wait_ready()
        eventually(lambda: own_database.query("SELECT 1 FROM reproq_queue_idle"), timeout=30, what="it says that it sleeps")
        assert runs.end_of("add", 1, 2).status == "SUCCESSFUL"
        assert runs.look([waiting])[0].lane == "parked"
