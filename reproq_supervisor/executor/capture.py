"""Where descriptors 1 and 2 of an executor lead: one memory file each, exchanged after a task that wrote to them.

The shard holds the same files, so it can read them when the executor is dead and cut one that grows too large. A writer that a task left
behind keeps the files of its own task: it cannot reach the next task's log.
"""

import fcntl
import os
import sys


def new_capture_file(name: str) -> int:
    """Return the descriptor of an empty memory file that every writer appends to."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | fcntl.fcntl(fd, fcntl.F_GETFL))
    return fd


class Capture:
    """The capture files of this executor; descriptors 1 and 2 are theirs from the start."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep

    def start(self, stdout: int, stderr: int) -> None:
        """Lead descriptors 1 and 2 to the given files."""
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)

    def exchange_if_written(self) -> tuple[int, int] | None:
        """Flush; when anything was written, put new files in place and return them (for the shard; the caller closes them)."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                # User code closed or replaced the stream: what it buffered is its own loss.
                continue
        if not self._keep or (os.fstat(1).st_size == 0 and os.fstat(2).st_size == 0):
            return None
        pair = (new_capture_file("reproq-stdout"), new_capture_file("reproq-stderr"))
        self.start(*pair)
        return pair
