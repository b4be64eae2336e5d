"""One non-blocking stream socket with JSON frames both ways: a child's channel, or a client of the control socket."""

import json
import socket
from typing import Any

from reproq_supervisor.core.frames import FrameError, FrameReader, encode_message

_READ_BYTES = 64 * 1024
_READS_AT_ONCE = 16  # one busy peer must not keep the loop from the others


class WireError(ValueError):
    """The peer sent what no peer of ours sends; the stream cannot be trusted any more."""


class Wire:
    """Buffers both directions with limits. Owns the socket."""

    def __init__(self, sock: socket.socket, *, max_frame_bytes: int, max_unsent_bytes: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.ended = False
        self._reader = FrameReader(max_frame_bytes)
        self._unsent = bytearray()
        self._max_unsent_bytes = max_unsent_bytes

    @property
    def unsent(self) -> bool:
        """Is something waiting to be written?"""
        return bool(self._unsent)

    def read(self, *, everything: bool = False) -> list[dict[str, Any]]:
        """Return the frames that have arrived; `ended` is set at the end of the stream.

        Args:
          everything: read until there is nothing more, as for a peer that is dead.

        Raises:
          WireError: a frame is too long, no JSON, or no object.
        """
        messages: list[dict[str, Any]] = []
        reads = 0
        while not self.ended and (everything or reads < _READS_AT_ONCE):
            reads += 1
            try:
                data = self.sock.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.ended = not data
            messages += self._decode(data)
        return messages

    def _decode(self, data: bytes) -> list[dict[str, Any]]:
        try:
            messages = [json.loads(frame) for frame in self._reader.feed(data)]
        except (FrameError, ValueError, RecursionError) as error:
            raise WireError(f"frame: {error}") from error
        for message in messages:
            if not isinstance(message, dict):
                raise WireError(f"frame: expected an object, got {type(message).__name__}")
        return messages

    def send(self, message: dict[str, Any]) -> bool:
        """Queue a frame and write what the peer takes; answer whether it was queued (False: the peer has stopped reading)."""
        frame = encode_message(message)
        if self.ended or len(self._unsent) + len(frame) > self._max_unsent_bytes:
            return False
        self._unsent += frame
        self.flush()
        return True

    def flush(self) -> None:
        """Write as much as the peer takes; what a dead peer does not take is dropped."""
        try:
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()

    def close(self) -> None:
        """Close the socket: for a child that lives, the end of its lifeline."""
        self.sock.close()
