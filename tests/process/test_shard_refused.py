"""PostgreSQL refuses the end of a run, since somebody's trigger misses its table, and the shard goes on with everything else."""

import pytest

from tests.support.postgres import Database
from tests.support.runs import Runs
from tests.support.shard import running_shard

REFUSED = '42P01: relation "audit" does not exist'


def audit(database: Database, run: int) -> None:
    """Have a trigger write changes of *run* into a table that is not there."""
    database.query(
        f"""CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.result_id = {run} THEN INSERT INTO audit VALUES (NEW.result_id); END IF; RETURN NEW; END $$"""
    )
    database.query("CREATE TRIGGER audit BEFORE UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION audit()")


@pytest.mark.parametrize("leaves", [False, True])
def test_a_result_is_kept_until_the_trigger_is_mended(database: Database, leaves: bool) -> None:
    runs = Runs(database)
    with running_shard(database, executors=1, lease=3, heartbeat=0.3) as shard:
        pids = shard.wait_executors(1)
        (poisoned,) = runs.add("nap", 0.5)
        audit(database, poisoned)
        shard.wait_snapshot(lambda s: s["refused"] == {"count": 1, "first": [poisoned], "error": REFUSED}, "it says what is refused")
        shard.wait_snapshot(lambda s: s["running"] == 0 and s["held"] == 1, "its result waits")
        assert {run.end for run in runs.ended(runs.add("nap", 0.01, count=20))} == {("SUCCESSFUL", None, 1)}
        # Longer than its lease: without renewal it would be reclaimed.
        assert {run.end for run in runs.ended(runs.add("nap", 4))} == {("SUCCESSFUL", None, 1)}
        assert runs.reclaim() == 0
        assert shard.wait_executors(1) == pids
        database.query("CREATE TABLE audit (run bigint)")
        if leaves:
            shard.say("drain", timeout=0)
            assert shard.wait_exit() == 0
        assert [run.end for run in runs.ended([poisoned])] == [("SUCCESSFUL", None, 1)]
        told = shard.events("shard.refused")[0]
        assert (told["result_id"], told["count"], told["error"]) == (poisoned, 1, REFUSED)
        assert not shard.events("database.lost")
