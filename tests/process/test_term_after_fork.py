"""A TERM that comes right after a fork, before the child has set itself up, is never lost."""

import os
import select
import signal
import socket
from collections import Counter
from typing import Any

import pytest

from reproq_supervisor.core import frames
from reproq_supervisor.process.deadlines import DeadlineTable
from reproq_supervisor.process.link import send_frame
from reproq_supervisor.process.spawn import python_argv, spawn_child

TERMS = 1000


@pytest.mark.timeout(120)
def test_a_thousand_terms_right_after_the_fork_of_an_executor_end_a_thousand_executors() -> None:
    table = DeadlineTable.create(1)
    nursery = spawn_child(python_argv("reproq_supervisor.executor"), os.environ)
    us = os.getpid()  # shard and supervisor in one
    parents = {"supervisor_pid": us, "shard_pid": us}
    settings = {
        "child": "t/0",
        **parents,
        "app": {},
        "pool_settings": {},
        "mode": "process",
        "slots": 1,
        "keep_output": True,
        "tick_s": 0.5,
        "worker_id": "t",
        "has_database": False,
    }
    send_frame(nursery.channel, frames.encode_message({"type": "start", **settings}), (table.fd,))
    reader, messages, descriptors = frames.FrameReader(), list[dict[str, Any]](), list[int]()

    def wait_told(kind: str) -> dict[str, Any]:
        while True:
            while not messages:
                data, received, _, _ = socket.recv_fds(nursery.channel, 65536, 64)
                assert data, "the nursery is gone"
                descriptors.extend(received)
                messages.extend(reader.feed_messages(data))
            message = messages.pop(0)
            if message["type"] == kind:
                return message

    ends: Counter[int] = Counter()
    for _ in range(TERMS):
        nursery.channel.sendall(frames.encode_message({"type": "fork", "slot": 0}))
        forked = wait_told("forked")
        signal.pidfd_send_signal(descriptors[1], signal.SIGTERM)
        assert select.select([descriptors[1]], [], [], 10)[0], "a TERM was lost"
        ends[wait_told("exited")["status"]] += 1
        nursery.channel.sendall(frames.encode_message({"type": "reap", "pid": forked["pid"]}))
        for fd in descriptors:
            os.close(fd)
        descriptors.clear()
    assert ends == {-signal.SIGTERM: TERMS}
    nursery.channel.close()
    assert os.waitstatus_to_exitcode(os.waitpid(nursery.pid, 0)[1]) == 0
    os.close(nursery.pidfd)
    os.close(table.fd)
