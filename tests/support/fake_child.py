"""A small program that speaks the channel of `docs/architecture.md` in the place of a shard or the keeper, as a test scripts it.

Its script is JSON in the environment setting FAKE of its pool (`pool_settings.env.FAKE`). Everything it hears goes to a file in the
runtime folder, one line per frame, so that a test sees what was said to whom.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.process.prctl import set_pdeathsig
from reproq_supervisor.process.stacks import write_stacks_on_signal

BEAT_S = 0.1


class FakeChild:
    """One child's life: hello, nursery, ready, beats, and an end."""

    def __init__(self) -> None:
        self.sock = socket.socket(fileno=3)
        self.reader = FrameReader()
        self.waiting: list[dict[str, Any]] = []
        self.start = self.hear(None)[0]
        pool = self.start["pool_settings"] or {}
        self.script: dict[str, Any] = json.loads(pool.get("env", {}).get("FAKE", "{}"))
        name = self.start["child"].replace("/", "-")
        self.heard = Path(self.start["runtime_dir"]) / f"heard-{name}-{os.getpid()}"
        self.note(self.start)

    def note(self, message: dict[str, Any]) -> None:
        with self.heard.open("a") as file:
            file.write(json.dumps(message) + "\n")

    def say(self, kind: str, **fields: Any) -> None:
        self.sock.sendall(encode_message({"type": kind, **fields}))

    def hear(self, timeout: float | None) -> list[dict[str, Any]]:
        """Return what the supervisor said within *timeout* seconds; leave when it is gone."""
        if self.waiting:
            found, self.waiting = self.waiting, []
            return found
        self.sock.settimeout(timeout)
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return []
        if not data:
            os._exit(0)
        messages = self.reader.feed_messages(data)
        self.waiting = messages[1:] if timeout is None else []
        return messages[:1] if timeout is None else messages

    def live(self) -> int:
        script = self.script
        self.say("hello", pid=os.getpid())
        if script.get("nursery"):
            nursery = subprocess.Popen([sys.executable, "-c", script["nursery"]])
            self.say("nursery", pid=nursery.pid)
        if script.get("fails"):
            self.say("failed", reason=script["fails"], permanent=bool(script.get("permanent")))
        if "exits" in script:
            return int(script["exits"])
        if script.get("boots") is not False:
            self.say("ready")
        if script.get("silent"):
            signal.pause()
        return self.work()

    def work(self) -> int:
        died = time.monotonic() + float(self.script.get("dies_s", float("inf")))
        while time.monotonic() < died:
            for message in self.hear(BEAT_S):
                self.note(message)
                match message["type"]:
                    case "drain" | "quit" if not self.script.get("stays"):
                        return 0
                    case "release_dead":
                        self.say("released", worker_ids=message["worker_ids"], count=1)
                        self.say("settled", worker_ids=message["worker_ids"])
            self.say("snapshot", snapshot={"running": 0, "progress": 0})
        return int(self.script.get("code", 70))


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_pdeathsig(signal.SIGKILL, parent_pid=os.getppid())
    write_stacks_on_signal()
    return FakeChild().live()


if __name__ == "__main__":
    sys.exit(main())
