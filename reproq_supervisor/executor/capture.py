"""Where descriptors 1 and 2 of an executor lead: one memory file each, exchanged after a task that wrote to them.

The shard holds the same files, so it can read them when the executor is dead and free what grows too large. A writer that a task left
behind keeps the files of its own task: it cannot reach the next task's log. That is why a task that started any process gives its files
away, too, though it wrote nothing: what it left may write later.
"""

import fcntl
import io
import os
import sys
from typing import TextIO

from reproq_supervisor.executor.offspring import Offspring

# Out of the way of descriptors that task code closes or leads elsewhere by number.
FIRST_OWN_FD = 64
_NO_STREAM = (OSError, ValueError, AttributeError)
"""What a stream or descriptor answers that was closed, or taken away."""


def new_capture_file(name: str) -> int:
    """Return the descriptor of an empty memory file that every writer appends to."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | fcntl.fcntl(fd, fcntl.F_GETFL))
    return fd


class Capture:
    """The capture files of this executor; descriptors 1 and 2 are theirs from the start, and again after every task."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._offspring = Offspring()
        self._own: tuple[int, int] = (-1, -1)
        self._inodes = (0, 0)
        self._streams: list[TextIO | None] = [sys.stdout, sys.stderr]
        if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.line_buffering:
            # A file has blocks else: what a task prints would come behind what its programs write, and be lost with a kill.
            sys.stdout.reconfigure(line_buffering=True)

    def start(self, stdout: int, stderr: int) -> None:
        """Lead descriptors 1 and 2 to the given files, which the caller closes."""
        for fd in self._own:
            if fd >= 0:
                os.close(fd)
        self._own = (
            fcntl.fcntl(stdout, fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD),
            fcntl.fcntl(stderr, fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD),
        )
        self._inodes = (os.fstat(stdout).st_ino, os.fstat(stderr).st_ino)
        self._lead_home()

    def exchange_if_written(self) -> tuple[int, int] | None:
        """Undo what a task did to its standard streams; if it wrote anything, put new files in place and return them.

        The caller closes them.
        """
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            out, err = os.fstat(1), os.fstat(2)
            are_ours = [sys.stdout, sys.stderr] == self._streams and (out.st_ino, err.st_ino) == self._inodes
        except _NO_STREAM:
            are_ours = False
        if not are_ours:
            out, err = self._restore()
        if not self._keep:
            return None
        # Asked after every task, also after those that wrote: it tells what is new since the last time.
        if not self._offspring.has_grown() and not out.st_size and not err.st_size:
            return None
        pair = (new_capture_file("reproq-stdout"), new_capture_file("reproq-stderr"))
        self.start(*pair)
        return pair

    def _lead_home(self) -> None:
        os.dup2(self._own[0], 1)
        os.dup2(self._own[1], 2)

    def _restore(self) -> tuple[os.stat_result, os.stat_result]:
        """Undo what user code did to streams and descriptors; what could not be flushed belongs to this task, not to the next."""
        for stream in self._streams:
            _flush(stream)  # it may have put its own in place of ours; then our descriptors still lead where it wanted
        self._lead_home()
        for at, stream in enumerate(self._streams):
            if not _flush(stream):
                self._streams[at] = open(at + 1, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = self._streams
        return os.fstat(1), os.fstat(2)


def _flush(stream: TextIO | None) -> bool:
    """Write out what *stream* holds; False when it is none, is closed, or leads nowhere."""
    try:
        stream.flush()  # type: ignore[union-attr]
    except _NO_STREAM:
        return False
    return True
