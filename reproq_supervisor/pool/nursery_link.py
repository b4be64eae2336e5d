"""The shard's end of its nursery: start it, ask for forks, hear of exits."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from reproq_supervisor.core import frames
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process import stacks
from reproq_supervisor.process.link import send_frame
from reproq_supervisor.process.secret import keep_secret
from reproq_supervisor.process.spawn import SpawnedChild, python_argv, spawn_child

STACKS_BEFORE_KILL_S = 0.2
"""Time for a hung process to write its stacks."""


class NurseryLink:
    """A running nursery.

    `descriptors` are the deadline table and, where there is one, the mark of the worker; `secret` goes after them, as one more.
    `on_message` gets every message of it, with the new executor for `forked`; `on_death` is called once, when the process itself is dead.
    """

    def __init__(
        self,
        start: dict[str, Any],
        descriptors: tuple[int, ...],
        on_message: Callable[[dict[str, Any], Executor | None], None],
        on_death: Callable[[], None],
        *,
        secret: str | None = None,
    ) -> None:
        self._slots: int = start["slots"]
        self._shared: bool = start["mode"] != "process"
        self._kept_bytes: tuple[int, int] = tuple(start["kept_bytes"])
        self._on_message = on_message
        self._on_death = on_death
        self._reader = frames.FrameReader()
        self._unsent = bytearray()
        self._descriptors: list[int] = []
        self._child: SpawnedChild = spawn_child(python_argv("reproq_supervisor.executor"), os.environ)
        self.pid = self._child.pid
        self.status: int | None = None
        self._gone = asyncio.Event()
        self._started_mono = time.monotonic()
        self._is_ready = False
        self._next_ping_mono = 0.0
        self._asked_mono: float | None = None  # when it was pinged, as long as no word has come since
        self._asked_for_stacks = False
        secrets = () if secret is None else (keep_secret(secret),)
        send_frame(self._child.channel, frames.encode_message({"type": "start", **start}), (*descriptors, *secrets))
        for fd in secrets:
            os.close(fd)
        self._child.channel.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._child.channel, self._read)
        loop.add_reader(self._child.pidfd, self._died)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, unless it is dead; what its socket does not take now follows when it does."""
        if self.status is None:
            self._unsent += frames.encode_message(message)
            self._write()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                del self._unsent[: self._child.channel.send(self._unsent)]
        except BlockingIOError:
            loop.add_writer(self._child.channel, self._write)
            return
        except (BrokenPipeError, ConnectionResetError):
            self._unsent.clear()
        loop.remove_writer(self._child.channel)

    def look(self, heartbeat_s: float, boot_s: float) -> str | None:
        """See that its imports end within *boot_s*, then that its loop runs: return why it cannot go on, or kill it, stacks first.

        It is pinged every half heartbeat, and killed after three heartbeats without a word.
        """
        if not self._is_ready:
            return self._look_at_boot(boot_s)
        now = time.monotonic()
        if self._asked_mono is None:
            # Silence counts from a question: were it from its last word, a shard that was frozen itself would kill a healthy nursery.
            if now >= self._next_ping_mono:
                self._next_ping_mono, self._asked_mono = now + heartbeat_s / 2, now
                self.send({"type": "ping"})
            return None
        silent_s = now - self._asked_mono
        if silent_s > 3 * heartbeat_s + STACKS_BEFORE_KILL_S:
            self.kill()
        elif silent_s > 3 * heartbeat_s and not self._asked_for_stacks:
            self._asked_for_stacks = True
            stacks.ask_for_stacks(self.pid)
        return None

    def _look_at_boot(self, boot_s: float) -> str | None:
        late_s = time.monotonic() - self._started_mono - boot_s
        if late_s < 0:
            return None
        if not self._asked_for_stacks:
            self._asked_for_stacks = True
            stacks.ask_for_stacks(self.pid)
        return (
            f"app.preload: expected the imports to end within {boot_s:g} s; where they hang is in the log"
            if late_s > STACKS_BEFORE_KILL_S
            else None
        )

    def kill(self) -> None:
        """Kill the nursery, and by its death signal every executor of it."""
        if self.status is None:
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)

    async def wait_gone(self, within_s: float) -> None:
        """Wait until it is dead; kill it when that takes longer."""
        try:
            await asyncio.wait_for(self._gone.wait(), within_s)
        except TimeoutError:
            self.kill()
            await self._gone.wait()

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._child.channel, 65536, 64)
        except (BlockingIOError, ConnectionResetError):
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._child.channel)
            return
        self._descriptors += descriptors
        self._asked_mono, self._asked_for_stacks = None, False
        for message in self._reader.feed_messages(data):
            self._is_ready = self._is_ready or message["type"] == "ready"
            self._on_message(message, self._executor(message) if message["type"] == "forked" else None)

    def _executor(self, message: dict[str, Any]) -> Executor:
        """Build the executor of a `forked` message; its descriptors have arrived with the first byte of the frame."""
        count = message["descriptors"]
        fds, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        work = socket.socket(fileno=fds[0])
        work.setblocking(False)
        return Executor(
            row=message["slot"],
            pid=message["pid"],
            work=work,
            pidfd=fds[1],
            tokens_write=fds[2],
            tokens_read=fds[3],
            capture=(fds[4], fds[5]) if count == 6 else None,
            most_slots=self._slots,
            shared=self._shared,
            kept_bytes=self._kept_bytes,
        )

    def _died(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._child.pidfd)
        self._read_rest()
        loop.remove_reader(self._child.channel)
        loop.remove_writer(self._child.channel)
        ended = os.waitid(os.P_PIDFD, self._child.pidfd, os.WEXITED)
        self.status = 0
        if ended is not None:
            self.status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        os.close(self._child.pidfd)
        self._child.channel.close()
        self._gone.set()
        self._on_death()

    def _read_rest(self) -> None:
        """A nursery that fails says why and leaves at once: its last words may still be in the socket."""
        while True:
            try:
                data = self._child.channel.recv(65536)
            except (BlockingIOError, ConnectionResetError):
                return
            if not data:
                return
            for message in self._reader.feed_messages(data):
                if message["type"] != "forked":
                    self._on_message(message, None)
