"""The other end of the control socket, for commands and for the web process."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.frames import FrameError, FrameReader, encode_message

CONNECT_TIMEOUT_S = 5.0
_READ_BYTES = 64 * 1024


class DaemonUnavailable(ReproqError):
    """Nobody answers at the control socket."""

    exit_code = 69


class DaemonLeft(DaemonUnavailable):
    """It had taken the request, and closed the connection without an answer: it ended meanwhile."""


class ControlClient:
    """Asks one daemon; every request is a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def request(self, request: dict[str, Any], *, timeout_s: float | None = 10.0) -> dict[str, Any]:
        """Return the answer to *request*.

        Args:
          timeout_s: None waits for ever, as for `reload`, which the daemon answers when it ended.

        Raises:
          DaemonUnavailable: nobody is there, or it left without an answer, or none came in time.
        """
        for answer in self._exchange(request, timeout_s):
            return answer
        raise DaemonLeft(f"{self.path}: the daemon closed the connection without an answer")

    def stream(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield every frame that answers *request*, until the daemon closes the connection.

        Raises:
          DaemonUnavailable: nobody is there, or what it sends is not ours.
        """
        yield from self._exchange(request, None)

    def _exchange(self, request: dict[str, Any], timeout_s: float | None) -> Iterator[dict[str, Any]]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._connected() as sock:
            reader = FrameReader()
            try:
                sock.sendall(encode_message(request))
                while True:
                    if deadline is None:
                        sock.settimeout(None)
                    else:
                        sock.settimeout(max(0.001, deadline - time.monotonic()))
                    data = sock.recv(_READ_BYTES)
                    if not data:
                        return
                    yield from reader.feed_messages(data)
            except TimeoutError:
                raise DaemonUnavailable(f"{self.path}: no answer within {timeout_s:g} s") from None
            except (OSError, FrameError, json.JSONDecodeError) as error:
                raise DaemonUnavailable(f"{self.path}: {error}") from error

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(CONNECT_TIMEOUT_S)
            try:
                sock.connect(self.path)
            except OSError as error:
                raise DaemonUnavailable(f"{self.path}: {error.strerror or error}") from error
            yield sock
