"""The wire form between shard and executor: batches of work one way, results one by one the other way.

Headers are binary so that payloads pass through the shard as bytes that nobody parses. Every task of a batch has a sequence number, new for
each hand-out; the token pipe carries the same numbers (see docs/architecture.md, "Token pipe").
"""

import math
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum, StrEnum
from typing import NamedTuple

TOKEN = struct.Struct("!Q")
_TASK = struct.Struct("!QqIIiHHIqd")
_RESULT = struct.Struct("!QBBdd")
_STOP = struct.Struct("!QB")
_SLOTS = struct.Struct("!H")
_OUTPUT = struct.Struct("!Q")
_NOTE = struct.Struct("!QB")
_NO_DELAY = math.nan
_NOTE_MARK = 255  # where a result has its verdict

MAX_TASK_PATH_BYTES = 4096
MAX_RESULT_BYTES = 1024 * 1024
"""The most that a task may return, as JSON text."""
MAX_METADATA_BYTES = 64 * 1024
"""The most that a run may note down about itself, as JSON text."""


class PayloadMode(StrEnum):
    """How a program gets the spec of the task that it runs (`isolation: exec`)."""

    STDIN = "stdin"
    FILE = "file"
    INLINE = "inline"


class Work(NamedTuple):  # made in 0.3 us, a frozen dataclass in 0.7, and several of them for each task
    """One task as an executor receives it.

    Attributes:
      spec: the JSON text of the record.
      lease_no: of the lease that it runs under.
      limit_s: how long it may run; 0 where nobody says.
    """

    seq: int
    result_id: int
    attempt: int
    max_attempts: int
    priority: int
    queue_name: str
    task_path: str
    spec: bytes
    lease_no: int = 0
    limit_s: float = 0.0


class Verdict(IntEnum):
    """What the executor says of an attempt; the shard turns it into an `Outcome`."""

    SUCCEED = 0
    FAIL = 1
    FAIL_FINALLY = 2
    COMPLETED = 4  # it succeeded, and has written so itself, in one transaction with what it did
    STOPPED = 3  # the soft signal ended it: what that means depends on why the shard sent it


_VERDICTS = {int(verdict): verdict for verdict in Verdict}  # a look-up takes a fifth of a call of the class


class Result(NamedTuple):
    """The end of one task.

    Attributes:
      body: JSON text: the return value for SUCCEED, else the error object.
      elapsed_s: how long the task ran, by the executor's clock.
      delay_s: the delay the task asked for before its retry, None for the policy's.
      output_follows: the frame carries two descriptors, the executor's new capture files; what the task wrote is in the old ones.
    """

    seq: int
    verdict: Verdict
    body: bytes
    elapsed_s: float = 0.0
    delay_s: float | None = None
    output_follows: bool = False

    def told(self, elapsed_s: float, *, output_follows: bool = False) -> "Result":
        """Return it as it is told; what `_replace` does takes twice as long."""
        return Result(self.seq, self.verdict, self.body, elapsed_s, self.delay_s, output_follows)


def encode_batch(works: Iterable[Work]) -> bytes:
    """Return the payload of a hand-out frame."""
    parts: list[bytes] = []
    for work in works:
        queue, path = work.queue_name.encode(), work.task_path.encode()[:MAX_TASK_PATH_BYTES]
        parts.append(
            _TASK.pack(
                work.seq,
                work.result_id,
                work.attempt,
                work.max_attempts,
                work.priority,
                len(queue),
                len(path),
                len(work.spec),
                work.lease_no,
                work.limit_s,
            )
        )
        parts += (queue, path, work.spec)
    return b"".join(parts)


def decode_batch(payload: bytes) -> Iterator[Work]:
    """Yield the tasks of a hand-out frame, in order."""
    at, end = 0, len(payload)
    while at < end:
        seq, result_id, attempt, max_attempts, priority, queue_n, path_n, spec_n, lease_no, limit_s = _TASK.unpack_from(payload, at)
        path_at = at + _TASK.size + queue_n
        spec_at = path_at + path_n
        queue = payload[path_at - queue_n : path_at].decode()
        path = payload[path_at:spec_at].decode("utf-8", "replace")
        at = spec_at + spec_n
        yield Work(seq, result_id, attempt, max_attempts, priority, queue, path, payload[spec_at:at], lease_no, limit_s)


def encode_result(result: Result) -> bytes:
    """Return the payload of a result frame."""
    seq, verdict, body, elapsed_s, delay_s, output_follows = result
    return _RESULT.pack(seq, verdict, output_follows, elapsed_s, _NO_DELAY if delay_s is None else delay_s) + body


def decode_result(payload: bytes) -> Result:
    """Return the result in a frame's payload."""
    seq, number, follows, elapsed, delay = _RESULT.unpack_from(payload)
    verdict = _VERDICTS.get(number)
    if verdict is None:
        raise ValueError(f"verdict: expected one of {', '.join(map(str, _VERDICTS))}, got {number}")
    asked = None if math.isnan(delay) else delay
    return Result(seq, verdict, payload[_RESULT.size :], elapsed, asked, output_follows=bool(follows))


def encode_stop(seq: int, reason: int) -> bytes:
    """Return the payload of a frame that asks one task of an executor with slots to stop; shorter than any hand-out."""
    return _STOP.pack(seq, reason)


def decode_stop(payload: bytes) -> tuple[int, int] | None:
    """Return (hand-out, reason) if that is what the frame is."""
    if len(payload) != _STOP.size:
        return None
    seq, reason = _STOP.unpack(payload)
    return seq, reason


def encode_slots(slots: int) -> bytes:
    """Return the payload of a frame that says how many tasks an executor may run at once from now on; shorter than any other."""
    return _SLOTS.pack(slots)


def decode_slots(payload: bytes) -> int | None:
    """Return the number if that is what the frame is."""
    return int(_SLOTS.unpack(payload)[0]) if len(payload) == _SLOTS.size else None


def encode_output_note(seq: int) -> bytes:
    """Return the payload of a frame with two descriptors, the capture files of that hand-out; shorter than any result."""
    return _OUTPUT.pack(seq)


def decode_output_note(payload: bytes) -> int | None:
    """Return the hand-out whose capture files came with the frame, if that is what it is."""
    return int(_OUTPUT.unpack(payload)[0]) if len(payload) == _OUTPUT.size else None


def encode_note(seq: int, metadata: bytes) -> bytes:
    """Return the payload of a frame with what a running task notes down about itself, as JSON text."""
    return _NOTE.pack(seq, _NOTE_MARK) + metadata


def decode_note(payload: bytes) -> tuple[int, bytes] | None:
    """Return (hand-out, metadata) if that is what the frame is."""
    if len(payload) <= _NOTE.size or payload[_NOTE.size - 1] != _NOTE_MARK:
        return None
    return int(_NOTE.unpack_from(payload)[0]), payload[_NOTE.size :]
