"""Length-prefixed frames: the one framing on every stream socket between our processes.

A frame is a 4-byte big-endian signed length followed by that many bytes. This is the wire form of
``multiprocess.connection.Connection`` for messages below 2 GiB, so a blocking peer may use that class while an event
loop uses this one.
"""

import json
import struct
from typing import Any

HEADER = struct.Struct("!i")
MAX_FRAME_BYTES = 64 * 1024 * 1024


class FrameError(ValueError):
    """The peer sent a length that no frame of ours can have."""


def encode(payload: bytes) -> bytes:
    """Return the frame that carries *payload*."""
    return HEADER.pack(len(payload)) + payload


def encode_message(message: dict[str, Any]) -> bytes:
    """Return the frame of a JSON message."""
    return encode(json.dumps(message, separators=(",", ":")).encode())


def encode_numbers(kind: str, numbers: dict[str, int]) -> bytes:
    """Return the frame of a JSON message of type *kind* that holds only numbers.

    Without `json`, which makes an encoder for each message: after a fork the nursery would copy 50 pages for it.
    """
    fields = "".join([f',"{name}":{number}' for name, number in numbers.items()])
    return encode(f'{{"type":"{kind}"{fields}}}'.encode())


class FrameReader:
    """Collects bytes as they arrive and yields the frames that are whole."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_frame_bytes = max_frame_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Add *data*; return the payloads completed by it, in order.

        Raises:
          FrameError: a length is negative or above the limit; the stream cannot be trusted any more.
        """
        gathered = self._buffer
        if gathered:
            gathered += data
        # Mostly whole frames arrive: then nothing is gathered, and each is copied once.
        buffer: bytes | bytearray = gathered or data
        frames: list[bytes] = []
        start, there = 0, len(buffer)
        while there - start >= 4:
            (length,) = HEADER.unpack_from(buffer, start)
            if not 0 <= length <= self._max_frame_bytes:
                raise FrameError(f"frame length: expected 0 to {self._max_frame_bytes}, got {length}")
            end = start + 4 + length
            if there < end:
                break
            frames.append(bytes(buffer[start + 4 : end]))
            start = end
        if gathered:
            del gathered[:start]
        elif start < there:
            gathered += buffer[start:]
        return frames

    def feed_messages(self, data: bytes) -> list[dict[str, Any]]:
        """Like `feed`, for streams that carry JSON objects only."""
        return [json.loads(frame) for frame in self.feed(data)]
