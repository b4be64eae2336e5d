"""What the embedded server writes, on its way to our log: so that it follows when that is moved away and opened again.

    server ──stderr──► pipe ──► guard ──► the file that the supervisor logs to now

Only where the log is a file. The server cannot open it again itself, and whoever reads a terminal, a journal or a pipe needs nobody
between. The pipe holds a megabyte, and the server writes a few lines a day: a guard that is frozen for a while holds nobody up, and one
that is frozen for longer is replaced with its server.
"""

import contextlib
import fcntl
import os
import stat

from reproq_supervisor.process.own_log import LOG_FD

_PIPE_BYTES = 2**20


class ServerLog:
    """The reading end; closed when every writer is gone."""

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        # Refused where that is more than any pipe may have, or this user's pipes have: then it is as long as others.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @classmethod
    def if_needed(cls) -> "ServerLog | None":
        """Return one when our log is a file; None when the server may write to it itself."""
        return cls() if stat.S_ISREG(os.fstat(LOG_FD).st_mode) else None

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to forward."""
        return self._read_fd

    def hand_over(self) -> None:
        """The server has its end: only its own end ends the pipe now."""
        os.close(self.write_fd)

    def forward(self) -> bool:
        """Write on what has come; answer whether more may come."""
        try:
            while data := os.read(self._read_fd, 65536):
                _write(data)
        except BlockingIOError:
            return True
        return False


def _write(data: bytes) -> None:
    """Write to our log; on a full disk it is lost, as it would be for the server."""
    try:
        while data:
            data = data[os.write(LOG_FD, data) :]
    except OSError:
        return
