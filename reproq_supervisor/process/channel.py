"""A child's end of the channel to the supervisor, on an event loop: messages both ways, and the lifeline."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from reproq_supervisor.core import frames

_MOST_UNSENT_BYTES = 4 * 1024 * 1024


class Channel:
    """Wraps the socket that the supervisor gave us. `on_lost` is called once, when the supervisor is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = frames.FrameReader()
        self._unsent = bytearray()
        self._early: list[dict[str, Any]] = []
        self._on_message: Callable[[dict[str, Any]], None] | None = None
        self._on_lost: Callable[[], None] | None = None

    def receive_start(self) -> dict[str, Any]:
        """Wait for the first message, before the event loop runs."""
        while True:
            data = self._sock.recv(65536)
            if not data:
                os._exit(0)  # the supervisor is gone before we began
            messages = self._reader.feed_messages(data)
            if messages:
                # What came along with it waits for `attach`.
                self._early = messages[1:]
                return messages[0]

    def attach(self, on_message: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]) -> None:
        """Serve the channel from the running loop from now on."""
        self._on_message, self._on_lost = on_message, on_lost
        self._sock.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sock, self._read)
        for message in self._early:
            loop.call_soon(on_message, message)
        self._early = []

    def say(self, kind: str, **fields: object) -> None:
        """Send a message; a supervisor that does not read for long loses the newest, never stops us."""
        frame = frames.encode_message({"type": kind, **fields})
        if len(self._unsent) + len(frame) > _MOST_UNSENT_BYTES:
            return
        self._unsent += frame
        self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            asyncio.get_running_loop().add_writer(self._sock, self._write)
            return
        except (BrokenPipeError, ConnectionResetError):
            self._unsent.clear()
        if self._on_message is not None:
            asyncio.get_running_loop().remove_writer(self._sock)

    def _read(self) -> None:
        assert self._on_message is not None
        assert self._on_lost is not None
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._on_lost()
            return
        for message in self._reader.feed_messages(data):
            self._on_message(message)
