"""What an executor with several slots says to its shard, from any thread.

The capture files of a run are told before its result, so that what it wrote survives a kill. They are told by the thread that reads the
socket, or with the result, never from the middle of a task: an exception that stops a task there would leave half a frame behind.
"""

import contextlib
import os
import threading
import time
from collections import deque
from dataclasses import dataclass

from reproq_supervisor.core.work import Result, encode_note, encode_output_note, encode_result
from reproq_supervisor.executor.streams import CaptureFiles
from reproq_supervisor.process.link import BlockingLink

_PATIENCE = 200


@dataclass(slots=True, eq=False)
class _Note:
    metadata: bytes
    told: bool = False


class Outbox:
    """Sends whole frames; `wake_fd` is readable when `flush` has something to do."""

    def __init__(self, link: BlockingLink) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._untold: deque[tuple[int, CaptureFiles]] = deque()
        self._notes: dict[int, _Note] = {}  # by hand-out; the last one counts
        self.wake_fd, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def tell_output(self, seq: int, files: CaptureFiles) -> None:
        """Have the capture files of a run told: without a lock, for this is called inside of tasks.

        It waits a moment for that: a task that prints and then ends the process would take its last words along.
        """
        self._untold.append((seq, files))
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")
        _wait_told(files)

    def tell_note(self, seq: int, metadata: bytes) -> None:
        """Have what a run notes about itself told, in the place of what is not yet told; waits a moment, as `tell_output` does."""
        note = _Note(metadata)
        replaced, self._notes[seq] = self._notes.get(seq), note
        if replaced is not None:
            replaced.told = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")
        _wait_told(note)

    def send(self, result: Result) -> None:
        """Send a result, and before it all that was left to be told."""
        with self._lock:
            self._tell()
            self._send(encode_result(result))

    def flush(self) -> None:
        """Send what was left to be told."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_fd, 4096)
        with self._lock:
            self._tell()

    def _tell(self) -> None:
        while self._untold:
            seq, files = self._untold.popleft()
            self._send(encode_output_note(seq), files.fds)
            files.told = True
        while self._notes:
            seq, note = self._notes.popitem()
            self._send(encode_note(seq, note.metadata))
            note.told = True

    def _send(self, payload: bytes, descriptors: tuple[int, ...] = ()) -> None:
        # The shard is gone when this fails; the end of the socket says so to the one who reads it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._link.send(payload, descriptors)


def _wait_told(what: CaptureFiles | _Note) -> None:
    for attempt in range(_PATIENCE):
        if what.told:
            return
        time.sleep(0 if attempt < _PATIENCE / 2 else 0.001)
