"""A keeper whose supervisor is gone leaves at once, whatever the database does."""

import os
import select

import pytest

from reproq_supervisor.core import frames
from reproq_supervisor.process.spawn import python_argv, spawn_child
from tests.support.postgres import Database

LEAVES_WITHIN_S = 1.5


@pytest.mark.parametrize("freeze", [False, True])
def test_a_keeper_whose_supervisor_is_gone_does_not_wait_for_the_database(own_database: Database, *, freeze: bool) -> None:
    child = spawn_child(python_argv("reproq_supervisor.keeper"), os.environ)
    start = {"type": "start", "role": "keeper", "worker_id": "keeper", "dsn": own_database.dsn, "heartbeat": 0.5}
    try:
        child.channel.sendall(frames.encode_message(start))
        said = frames.FrameReader()
        messages: list[str] = []

        def wait_said(kind: str, times: int) -> None:
            wanted = messages.count(kind) + times
            while messages.count(kind) < wanted:
                assert select.select([child.channel], [], [], 10)[0], f"expected {times} more {kind}, heard {messages}"
                messages.extend(message["type"] for message in said.feed_messages(child.channel.recv(65536)))

        wait_said("ready", 1)
        if freeze:
            own_database.cluster.freeze()
        else:
            own_database.cluster.kill()
        # Six reports come in a second, and it looks for due rows twice: by then it waits for an answer.
        wait_said("snapshot", 8)
        child.channel.close()
        assert select.select([child.pidfd], [], [], LEAVES_WITHIN_S)[0], "it still waits for the database"
    finally:
        os.kill(child.pid, 9)
        os.waitpid(child.pid, 0)
        os.close(child.pidfd)
        child.channel.close()
        own_database.cluster.thaw()
