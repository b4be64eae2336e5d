"""Somebody else keeps the record of a held run locked, and the shard goes on with everything else."""

import pytest

from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import running_shard

LOCKS = {
    "lock": "SELECT FROM task_runs WHERE result_id = %s FOR UPDATE",
    "update": "UPDATE task_runs SET metadata_json = '{}' WHERE result_id = %s",
}


@pytest.mark.parametrize("how", LOCKS)
def test_a_locked_record_holds_up_its_own_run_and_no_other(database: Database, how: str) -> None:
    runs = Runs(database)
    with running_shard(database, executors=2, lease=3, heartbeat=0.3) as shard, database.connect(autocommit=False) as other:
        pids = shard.wait_executors(2)
        (busy,) = runs.add("nap", 1)
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        other.execute(LOCKS[how], (busy,))
        assert {run.end for run in runs.ended(runs.add("nap", 0.05, count=40))} == {("SUCCESSFUL", None, 1)}
        # The tasks below take longer than the lease of the one that waits: without renewal it would be reclaimed.
        assert {run.end for run in runs.ended(runs.add("nap", 4, count=2))} == {("SUCCESSFUL", None, 1)}
        assert runs.reclaim() == 0
        assert [run.lane for run in runs.look([busy])] == ["running"]
        other.rollback()
        assert runs.ended([busy])[0].end == ("SUCCESSFUL", None, 1)
        assert shard.wait_executors(2) == pids
        assert not shard.events("database.lost")


def test_a_shard_that_leaves_waits_for_a_locked_record(database: Database) -> None:
    runs = Runs(database)
    with running_shard(database, executors=1) as shard, database.connect(autocommit=False) as other:
        (busy,) = runs.add("nap", 0.5)
        shard.wait_snapshot(lambda s: s["running"] == 1, "it runs")
        other.execute(LOCKS["lock"], (busy,))
        shard.wait_snapshot(lambda s: s["running"] == 0 and s["held"] == 1, "its result waits")
        shard.wait_snapshot(lambda s: s["locked_endings"] == {"count": 1, "first": [busy]}, "it says for what")
        shard.say("drain", timeout=0)
        shard.wait_snapshots(2)
        other.rollback()
        assert shard.wait_exit() == 0
        assert [run.end for run in runs.look([busy])] == [("SUCCESSFUL", None, 1)]
        assert not shard.events("shard.left_unwritten")
