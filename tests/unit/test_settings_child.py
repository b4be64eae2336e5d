"""The one-shot child that loads the configuration for a reload."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.settings.load import answer

RUNTIME = {"config_path": "x", "dsn": "postgresql:///x", "embedded": None}


class Child:
    """`python -P -m reproq_supervisor.settings.load` with our end of its channel."""

    def __init__(self, folder: Path) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(60)
        with theirs:
            move = (
                f"import os, runpy; os.dup2({theirs.fileno()}, 3); runpy.run_module('reproq_supervisor.settings.load', run_name='__main__')"
            )
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", move], pass_fds=[theirs.fileno()], cwd=folder, env={**os.environ, "LOGS": "/logs"}
            )

    def ask(self, **start: Any) -> dict[str, Any]:
        self.channel.sendall(encode_message({"type": "start", **start}))
        reader = FrameReader()
        while True:
            data = self.channel.recv(65536)
            assert data, "the child left without an answer"
            for message in reader.feed_messages(data):
                return message


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path)
    yield child
    child.channel.close()
    child.process.kill()
    child.process.wait()


def test_the_child_answers_with_resolved_settings_and_keeps_the_runtime_block(child: Child, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("logs_dir: ${LOGS}\nshutdown_timeout: 5s\n")
    reply = child.ask(config_path=str(tmp_path / "c.yaml"), overrides={"pools.default.executors": 2}, runtime=RUNTIME, environ=None)
    assert reply["type"] == "settings"
    settings = reply["settings"]
    assert (settings["logs_dir"], settings["shutdown_timeout"]) == ("/logs", 5.0)
    assert settings["pools"]["default"]["executors"] == {"min": 2, "max": 2}
    assert settings["runtime"] == RUNTIME
    assert child.process.wait(60) == 0


def test_the_child_answers_with_every_problem_and_exits_0(child: Child, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("webb: 1\nlogs: 2\n")
    reply = child.ask(config_path=str(tmp_path / "c.yaml"), overrides={}, runtime=RUNTIME)
    assert reply["type"] == "problems"
    assert reply["problems"] == [
        {"path": "webb", "line": 1, "column": 1, "message": "expected a known key", "hint": "did you mean web?"},
        {"path": "logs", "line": 2, "column": 7, "message": "expected a mapping, got 2", "hint": None},
    ]
    assert child.process.wait(60) == 0


def test_the_child_leaves_when_the_supervisor_is_gone(child: Child) -> None:
    child.channel.close()
    assert child.process.wait(60) == 75


def test_the_child_leaves_in_the_middle_of_a_slow_file_when_the_supervisor_is_gone(child: Child, tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("a: [" + "x, " * 340_000 + "]")
    child.channel.sendall(encode_message({"type": "start", "config_path": str(tmp_path / "slow.yaml"), "runtime": {}}))
    child.channel.close()
    assert child.process.wait(60) == 75


def test_the_answer_is_json(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{}")
    reply = answer({"type": "start", "config_path": str(tmp_path / "c.yaml"), "environ": {}, "runtime": RUNTIME})
    assert json.loads(json.dumps(reply)) == reply
