"""Real keepers, and the supervisor's side of them."""

import contextlib
import os
import select
from collections.abc import Callable, Iterator

from reproq_supervisor.core import frames
from reproq_supervisor.process.spawn import python_argv, spawn_child
from tests.support.eventually import eventually
from tests.support.postgres import Database


class RunningKeeper:
    """The supervisor's side of one keeper."""

    def __init__(self, database: Database, name: str, **more: object) -> None:
        self.name = name
        self._child = spawn_child(python_argv("reproq_supervisor.keeper"), os.environ)
        self._reader = frames.FrameReader()
        self.snapshot: dict[str, object] = {}
        self.heard: list[str] = []
        self._events: list[str] = []
        start = {"type": "start", "role": "keeper", "worker_id": name, "dsn": database.dsn, "heartbeat": 0.3}
        self.tell(**start, **more, keeper_settings={"reclaim_interval": 0.2})

    @property
    def pid(self) -> int:
        return self._child.pid

    def tell(self, **message: object) -> None:
        self._child.channel.sendall(frames.encode_message(message))

    def listen(self) -> None:
        """Take in what it says, for a moment."""
        if not select.select([self._child.channel], [], [], 0.05)[0]:
            return
        try:
            data = self._child.channel.recv(65536)
        except ConnectionResetError:
            return  # it was killed with words of ours unread
        for message in self._reader.feed_messages(data):
            self.heard.append(message["type"])
            self.snapshot = message.get("snapshot", self.snapshot)
            if message["type"] == "event":
                self._events.append(message["event"]["name"])

    def wait(self, condition: Callable[[], object], what: str) -> None:
        def listened() -> object:
            self.listen()
            return condition()

        eventually(listened, timeout=60, interval=0.0, what=what)

    def is_up(self) -> bool:
        return bool(self.snapshot.get("database", {}).get("up"))  # type: ignore[attr-defined]

    def acts(self) -> bool:
        """Answer whether it said last that the term is its own."""
        term = self.snapshot.get("term") or {}
        return bool(term.get("acts"))  # type: ignore[attr-defined]

    def events(self) -> list[str]:
        """Return the names of the events that it told."""
        return self._events

    def ran(self, duty: str) -> int:
        """Return how many rows *duty* has changed so far."""
        return int(self.snapshot.get("duties", {}).get(duty, {}).get("total", 0))  # type: ignore[attr-defined]

    def end(self) -> None:
        os.kill(self._child.pid, 9)
        os.waitpid(self._child.pid, 0)
        os.close(self._child.pidfd)
        self._child.channel.close()


@contextlib.contextmanager
def running_keeper(database: Database, name: str = "keeper", **more: object) -> Iterator[RunningKeeper]:
    keeper = RunningKeeper(database, name, **more)
    try:
        yield keeper
    finally:
        keeper.end()
