"""The clients of the control socket: one request each, checked peers, limits on everything they can make us keep."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.core.supervision.facts import ClientId, ClientLeft, Fact, RequestReceived
from reproq_supervisor.supervisor.wire import Wire, WireError

MAX_CLIENTS = 64
MAX_REQUEST_BYTES = 64 * 1024
MAX_UNSENT_BYTES = 4 * 1024 * 1024
REQUEST_WITHIN_S = 10.0
"""A client that has not asked anything by then is cut off: it only takes the place of others."""
READ_WITHIN_S = 30.0
"""A client that does not take its answer is cut off after that long."""

_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(slots=True)
class Client:
    """One connection. *since_mono* is when it last got on: connected, asked, or took something."""

    number: ClientId
    wire: Wire
    since_mono: float
    asked: bool = False
    follows: bool = False
    closing: bool = False


class Control:
    """Accepts, reads requests, writes answers. Never waits for anybody."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.is_exhausted = False
        self._clients: dict[ClientId, Client] = {}
        self._last = 0

    def __iter__(self) -> Iterator[Client]:
        return iter(tuple(self._clients.values()))

    def accept(self, now: float) -> Client | None:
        """Take a connection; None when there is none, or its peer has no business here."""
        try:
            sock, _ = self.listener.accept()
        except OSError as error:
            # It left again; or we are out of descriptors, and it stays in the queue until we have some.
            self.is_exhausted = error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
            return None
        self.is_exhausted = False
        wire = Wire(sock, max_frame_bytes=MAX_REQUEST_BYTES, max_unsent_bytes=MAX_UNSENT_BYTES)
        refusal = self._refusal(sock)
        if refusal is not None:
            code, reason = refusal
            wire.send({"ok": False, "code": code, "error": reason, "problems": []})
            wire.close()
            return None
        self._last += 1
        client = Client(ClientId(self._last), wire, now)
        self._clients[client.number] = client
        return client

    def _refusal(self, sock: socket.socket) -> tuple[int, str] | None:
        """Return the exit code and the reason for which nothing of this peer is heard, None when it is welcome."""
        _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in (0, os.geteuid()):
            return 1, f"control socket: expected root or user {os.geteuid()}, got user {uid}"
        if len(self._clients) >= MAX_CLIENTS:
            return 75, f"control socket: expected at most {MAX_CLIENTS} clients at once; try again"
        return None

    def hear(self, client: Client, now: float) -> list[Fact]:
        """Read from a client. Its first request counts; what comes after it is ignored until it has its answer."""
        try:
            messages = client.wire.read()
        except WireError as error:
            self.reply(client.number, {"ok": False, "code": 2, "error": str(error), "problems": []}, now, last=True)
            client.wire.ended = True
            messages = []
        if client.wire.ended:
            return [ClientLeft(client.number)]
        if client.asked or not messages:
            return []
        client.asked, client.since_mono = True, now
        return [RequestReceived(client.number, messages[0])]

    def reply(self, number: ClientId, message: dict[str, Any], now: float, *, last: bool) -> Client | None:
        """Queue an answer; the connection is closed behind the last one."""
        client = self._clients.get(number)
        if client is None:
            return None
        client.since_mono = now
        if not client.wire.send(message):
            client.wire.ended = True  # it does not read: nothing of it is worth keeping
        client.closing = client.closing or last
        return client

    def follow(self, number: ClientId) -> None:
        """Send a client every event from now on."""
        if number in self._clients:
            self._clients[number].follows = True

    def is_over(self, client: Client, now: float) -> bool:
        """Answer whether a client is done with, or has had its time."""
        if client.wire.ended or (client.closing and not client.wire.unsent):
            return True
        if client.wire.unsent:
            return now - client.since_mono > READ_WITHIN_S
        return not client.asked and now - client.since_mono > REQUEST_WITHIN_S

    def close(self, client: Client) -> None:
        """Close a connection and forget the client."""
        client.wire.close()
        self._clients.pop(client.number, None)
