"""Standard output of tasks that share a process: what Python code writes belongs to the run in whose context it runs.

The rest (C code, programs, threads that a task left behind) keeps descriptors 1 and 2: it goes to the executor's own log.

Nothing here takes a lock or buffers: a task may be stopped by an exception anywhere in it, and what it wrote must survive a kill.
"""

import fcntl
import io
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TextIO

from reproq_supervisor.executor.capture import FIRST_OWN_FD, new_capture_file


class CaptureFiles:
    """Two memory files. They are closed when nobody can write any more: a number closed earlier could be another run's by then."""

    def __init__(self) -> None:
        self.told = False  # the shard has them, too
        self.fds = (_out_of_the_way(new_capture_file("reproq-stdout")), _out_of_the_way(new_capture_file("reproq-stderr")))

    def __del__(self) -> None:
        for fd in self.fds:
            os.close(fd)


class RunOutput:
    """What one run writes; *tell* is called once, with the files, when it begins to."""

    def __init__(self, tell: Callable[[CaptureFiles], None]) -> None:
        self._tell = tell
        self._made: dict[str, CaptureFiles] = {}
        self.ended = False

    def write(self, stream: int, data: bytes) -> None:
        """Append to stream 1 or 2."""
        files = self._made.get("files")
        if files is None:
            new = CaptureFiles()
            files = self._made.setdefault("files", new)
            if files is new:  # else another thread of the task was faster
                self._tell(files)
        os.write(files.fds[stream - 1], data)


OUTPUT: ContextVar[RunOutput | None] = ContextVar("reproq_output", default=None)
"""Where the code that runs now writes to; None for the process's own streams."""


def _current() -> RunOutput | None:
    output = OUTPUT.get()
    return None if output is None or output.ended else output


class TaskBytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes for the run that writes them."""

    def __init__(self, stream: int) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raw = bytes(data)  # type: ignore[call-overload]
        output = _current()
        if output is None:
            view = memoryview(raw)
            while view:
                view = view[os.write(self._stream, view) :]
        else:
            output.write(self._stream, raw)
        return len(raw)

    def fileno(self) -> int:
        return self._stream


class TaskStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a process whose tasks share it."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    closed = False

    def __init__(self, stream: int) -> None:
        self.buffer = TaskBytes(stream)
        self.name = "<stdout>" if stream == 1 else "<stderr>"
        self.mode = "w"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.buffer.write(text.encode(self.encoding, self.errors))
        return len(text)

    def fileno(self) -> int:
        return self.buffer.fileno()

    def close(self) -> None:
        """Stay open: it is not the caller's alone."""


class TaskStreams:
    """Both of them, and the descriptors below; `restore` undoes what a task did to either."""

    def __init__(self) -> None:
        self._streams: tuple[TextIO, TextIO] = (TaskStream(1), TaskStream(2))  # type: ignore[assignment]
        self._own: dict[int, int] = {}
        self._files: dict[int, tuple[int, int]] = {}

    def lead(self, stream: int, fd: int) -> None:
        """Lead descriptor 1 or 2 to a file, of which *fd* is taken over."""
        self._own[stream] = _out_of_the_way(fd)
        self._files[stream] = _file_at(self._own[stream])
        os.dup2(self._own[stream], stream)

    def restore(self) -> None:
        """Make them the process's streams (again)."""
        if sys.stdout is not self._streams[0]:
            sys.stdout = self._streams[0]
        if sys.stderr is not self._streams[1]:
            sys.stderr = self._streams[1]
        for stream, own in self._own.items():
            if _file_at(stream) != self._files[stream]:
                os.dup2(own, stream)


def _file_at(fd: int) -> tuple[int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return (0, 0)  # closed
    return found.st_dev, found.st_ino


def _out_of_the_way(fd: int) -> int:
    """Move *fd* to a number that task code does not close or lead elsewhere."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
    os.close(fd)
    return moved
