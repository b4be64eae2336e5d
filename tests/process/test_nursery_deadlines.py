"""A nursery kills at the very moment that the deadline table says, and tells how late it was; the test plays the shard."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from reproq_supervisor.core import frames
from reproq_supervisor.process import clock
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.link import send_frame
from reproq_supervisor.process.spawn import SpawnedChild, python_argv, spawn_child

NEVER_S = 3600.0
"""Between two looks: what happens in time happens for another reason."""


class PlayedShard:
    """The shard's end of a nursery that looks at its table only when it has a reason to."""

    def __init__(self) -> None:
        self.table = DeadlineTable.create(8)
        self.child: SpawnedChild = spawn_child(python_argv("reproq_supervisor.executor"), os.environ)
        us = os.getpid()  # shard and supervisor in one
        start = {"supervisor_pid": us, "shard_pid": us, "child": "t/0", "app": {}, "pool_settings": {}, "mode": "process", "slots": 1}
        start |= {"keep_output": False, "tick_s": NEVER_S, "worker_id": "t", "has_database": False}
        send_frame(self.child.channel, frames.encode_message({"type": "start", **start}), (self.table.fd,))
        self._reader = frames.FrameReader()
        self._messages: list[dict[str, Any]] = []
        self._descriptors: list[int] = []
        self.child.channel.settimeout(60)

    def say(self, kind: str, **fields: object) -> None:
        self.child.channel.sendall(frames.encode_message({"type": kind, **fields}))

    def wait_told(self, kind: str) -> dict[str, Any]:
        """Wait for the next message of that type, and drop what comes before it."""
        while True:
            while not self._messages:
                data, descriptors, _, _ = socket.recv_fds(self.child.channel, 65536, 64)
                assert data, "the nursery is gone"
                self._descriptors += descriptors
                self._messages += self._reader.feed_messages(data)
            message = self._messages.pop(0)
            if message["type"] == kind:
                return message

    def fork(self, row: int) -> int:
        self.say("fork", slot=row)
        return int(self.wait_told("forked")["pid"])

    def close(self) -> None:
        self.say("leave")
        os.waitpid(self.child.pid, 0)
        self.child.channel.close()
        for fd in (self.child.pidfd, self.table.fd, *self._descriptors):
            os.close(fd)


@pytest.fixture
def shard() -> Iterator[PlayedShard]:
    played = PlayedShard()
    played.wait_told("ready")
    yield played
    played.close()


def test_a_nursery_that_saw_a_deadline_wakes_for_it_and_for_the_next(shard: PlayedShard) -> None:
    pids = [shard.fork(row) for row in range(3)]
    now = clock.boot_time_s()
    for row, in_s in ((2, 0.2), (0, 0.4), (1, NEVER_S)):
        shard.table.set_kill_at(row, now + in_s)
    shard.say("ping")
    told = [shard.wait_told("overdue") for _ in range(2)]
    assert [each["pid"] for each in told] == [pids[2], pids[0]]
    assert all(0 <= each["late_s"] < clock.boot_time_s() - now for each in told)
    assert shard.table.kill_at(1) == now + NEVER_S
