"""What a keeper does while and after the database is away."""

import time

import pytest

from reproq_supervisor.core.runs import Outcome
from reproq_supervisor.keeper.truce import TRUCE_S
from tests.store.actors import Shard, ended, record
from tests.support.keepers import running_keeper
from tests.support.postgres import Database
from tests.support.runs import Runs


@pytest.mark.slow
def test_a_shard_that_reconnects_after_the_keeper_still_writes_its_result(own_database: Database) -> None:
    (run, lost) = Runs(own_database).add("noop", count=2)
    shard = Shard(own_database.dsn)
    with ended(shard), running_keeper(own_database) as keeper:
        keeper.wait(keeper.is_up, "the keeper is connected")
        claimed, _ = shard.claim(2, lease_s=600)
        own_database.query("CHECKPOINT")  # a claim does not wait for the disk
        own_database.cluster.kill()
        keeper.wait(lambda: not keeper.is_up(), "the keeper has noticed")
        own_database.cluster.start()
        keeper.wait(keeper.is_up, "the keeper is back")
        reconnected = time.monotonic()
        own_database.query("UPDATE task_lane SET leased_until = now() - interval '1 s'")
        turns = keeper.heard.count("snapshot") + 3
        keeper.wait(lambda: keeper.heard.count("snapshot") >= turns, "it went about its duties")
        with ended(late := Shard(own_database.dsn)):
            assert late.end_run(claimed, Outcome.SUCCEED, b'"kept"').ended == {run: "SUCCESSFUL"}
        keeper.wait(lambda: keeper.ran("reclaim") == 1, "what nobody came back for is reclaimed")
        assert time.monotonic() - reconnected > TRUCE_S / 2
    assert record(own_database, run)["return_json"] == "kept"
    assert record(own_database, lost)["errors_json"][0]["kind"] == "lease_expiry"


def test_a_new_keeper_releases_what_dead_workers_held_before_it_reclaims(database: Database) -> None:
    (run,) = Runs(database).add("noop")
    shard = Shard(database.dsn)
    with ended(shard):
        shard.claim(1, lease_s=0)
    with running_keeper(database) as keeper:
        keeper.wait(lambda: "hello" in keeper.heard, "the keeper can be told")
        keeper.tell(type="release_dead", worker_ids=["worker-1"])
        keeper.wait(lambda: keeper.ran("release") == 1, "the run is released")
    assert record(database, run)["errors_json"] == []
