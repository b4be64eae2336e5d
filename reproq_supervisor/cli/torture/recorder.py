"""Listens to what the tasks say of themselves, past the queue: who started, who ended, whose connection broke.

The other end, and what is said, is in `executor/torture.py`. All times are of one clock, ours, and are taken within
the execution, so two executions that overlap here did run at the same time. What ends is booked before what starts of the same look: a
killed executor's connection is closed before anybody can know of its death, so that an execution that follows from that death never seems
to overlap with it.
"""

import selectors
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

_BACKLOG = 4096
_READ_BYTES = 4096


class How(StrEnum):
    """How an execution ended."""

    RUNS = "runs"
    DONE = "done"
    FAILED = "failed"  # as it was told to
    BROKEN = "broken"  # its process ended, or the network did


@dataclass(slots=True)
class Execution:
    """One execution of a task; monotonic seconds."""

    name: str
    id: str
    began: float
    ended: float = float("inf")
    how: How = How.RUNS


@dataclass(slots=True)
class _Peer:
    socket: socket.socket
    rest: bytes = b""
    execution: Execution | None = None
    lines: list[str] = field(default_factory=list)
    gone: bool = False


class Recorder:
    """Listens in a thread of its own, between `start` and `close`.

    Args:
      host, port: where to listen; port 0 is any that is free.
      token: what a task must know.
      failing: names whose first execution is told to fail.
    """

    def __init__(self, host: str, port: int, token: str, failing: Collection[str]) -> None:
        self._token = token
        self._failing = set(failing)
        self._executions: list[Execution] = []
        self._done: set[str] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="recorder", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening; what was heard stays."""
        self._closing.set()
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._wake.close()
        self._selector.close()

    @property
    def done_count(self) -> int:
        """How many tasks have come to their end at least once."""
        return len(self._done)

    @property
    def executions(self) -> list[Execution]:
        """What was heard, in order of the starts. Read it when nothing runs any more."""
        return list(self._executions)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._closing.is_set():
            peers = [key.data for key, _ in self._selector.select() if self._is_heard(key)]
            for peer in peers:
                self._read(peer)
            for peer in peers:
                if peer.execution is not None:
                    self._note_end(peer)
            for peer in peers:
                if peer.execution is None and self._has_started(peer):
                    self._note_end(peer)  # it may also have ended by now
                if peer.gone:
                    self._selector.unregister(peer.socket)
                    peer.socket.close()

    def _is_heard(self, key: selectors.SelectorKey) -> bool:
        if key.fileobj is self._listener:
            self._accept()
        return key.data is not None

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:  # nobody is left, or the one who was has gone
                return
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(peer, selectors.EVENT_READ, _Peer(peer))

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, peer.rest = (peer.rest + data).split(b"\n")
        peer.lines += [line.decode(errors="replace") for line in lines]
        peer.gone = not data or len(peer.rest) > _READ_BYTES

    def _has_started(self, peer: _Peer) -> bool:
        if not peer.lines:
            return False
        match peer.lines.pop(0).split(" "):
            case ["hello", token, name, execution] if token == self._token:
                peer.execution = Execution(name, execution, time.monotonic())
                self._executions.append(peer.execution)
                fails = name in self._failing
                self._failing.discard(name)
                self._say(peer, "fail" if fails else "go")
                return True
            case _:
                peer.gone = True
                return False

    def _note_end(self, peer: _Peer) -> None:
        execution = peer.execution
        assert execution is not None, "only of one who has started"
        if execution.how is How.RUNS and peer.lines:
            execution.ended = time.monotonic()
            execution.how = How.DONE if peer.lines.pop(0) == "done" else How.FAILED
            if execution.how is How.DONE:
                self._done.add(execution.name)
            self._say(peer, "noted")
        if execution.how is How.RUNS and peer.gone:
            execution.ended, execution.how = time.monotonic(), How.BROKEN

    def _say(self, peer: _Peer, word: str) -> None:
        try:
            peer.socket.send(f"{word}\n".encode())
        except OSError:
            peer.gone = True
