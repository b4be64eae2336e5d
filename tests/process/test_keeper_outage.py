"""What a keeper does while and after the database is away."""

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator

import pytest

from reproq_supervisor.core import frames
from reproq_supervisor.core.runs import Outcome
from reproq_supervisor.keeper.truce import TRUCE_S
from reproq_supervisor.process.spawn import python_argv, spawn_child
from tests.store.actors import Shard, ended, record
from tests.support.eventually import eventually
from tests.support.postgres import Database
from tests.support.runs import Runs


class RunningKeeper:
    """The supervisor's side of one keeper."""

    def __init__(self, database: Database) -> None:
        self._child = spawn_child(python_argv("reproq_supervisor.keeper"), os.environ)
        self._reader = frames.FrameReader()
        self.snapshot: dict[str, object] = {}
        self.heard: list[str] = []
        start = {"type": "start", "role": "keeper", "worker_id": "keeper", "dsn": database.dsn, "heartbeat": 0.3}
        self.tell(**start, keeper_settings={"reclaim_interval": 0.2})

    def tell(self, **message: object) -> None:
        self._child.channel.sendall(frames.encode_message(message))

    def listen(self) -> None:
        """Take in what it says, for a moment."""
        if not select.select([self._child.channel], [], [], 0.05)[0]:
            return
        for message in self._reader.feed_messages(self._child.channel.recv(65536)):
            self.heard.append(message["type"])
            self.snapshot = message.get("snapshot", self.snapshot)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        def listened() -> object:
            self.listen()
            return condition()

        eventually(listened, timeout=60, interval=0.0, what=what)

    def is_up(self) -> bool:
        return bool(self.snapshot.get("database", {}).get("up"))  # type: ignore[attr-defined]

    def ran(self, duty: str) -> int:
        """Return how many rows *duty* has changed so far."""
        return int(self.snapshot.get("duties", {}).get(duty, {}).get("total", 0))  # type: ignore[attr-defined]

    def end(self) -> None:
        os.kill(self._child.pid, 9)
        os.waitpid(self._child.pid, 0)
        os.close(self._child.pidfd)
        self._child.channel.close()


@contextlib.contextmanager
def running_keeper(database: Database) -> Iterator[RunningKeeper]:
    keeper = RunningKeeper(database)
    try:
        yield keeper
    finally:
        keeper.end()


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
