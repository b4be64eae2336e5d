"""Recycling under the whole daemon: shards share their turns, and people can see what happened."""

from collections.abc import Callable
from pathlib import Path

from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.runs import Runs

StartDaemon = Callable[..., Daemon]


def test_two_shards_recycle_by_turns_and_it_can_be_seen(start_daemon: StartDaemon, database: Database) -> None:
    recycle = {"tasks": 5, "age": "1s", "jitter": "20%"}
    daemon = start_daemon(demo_config(database.dsn, pool={"shards": 2, "executors": 4, "recycle": recycle}))
    runs = Runs(database)
    ended = runs.ended(runs.add("nap", 0.02, count=200))
    assert {run.end for run in ended} == {("SUCCESSFUL", None, 1)}

    def of_each_shard() -> list[int]:
        snapshots = daemon.answer("status")["pools"]["default"]["snapshots"]
        counts = [sum(snapshot["recycled"].values()) for snapshot in snapshots.values()]
        return counts if len(counts) == 2 and all(counts) else []

    eventually(of_each_shard, timeout=60.0, interval=0.2, what="both shards have recycled")
    assert "has recycled executors: " in daemon.command("explain", "default").stdout
    assert "default: executors recycled: " in daemon.command("status").stdout
    assert "executor.recycled" in daemon.log
    turns = list(Path(daemon.folder).rglob("recycle-default.turns"))
    assert [turn.stat().st_mode & 0o777 for turn in turns] == [0o600]
    units = daemon.answer("status")["pools"]["default"]["account"]
    assert (units["circuit"], units["recent_exits"]) == ("closed", 0)
