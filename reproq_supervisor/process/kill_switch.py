"""The right to kill one process, kept by somebody who gives up the right to signal it.

A process that changes its user may not signal what it left behind. But a signal on readiness of a descriptor (`F_SETOWN`, `F_SETSIG`,
`O_ASYNC`) is checked against whoever arranged it: so a pipe is arranged before the change, and a byte written into it kills.
The kernel holds the process itself, not its number: a switch whose process is gone does nothing.
"""

import fcntl
import os
import signal


class KillSwitch:
    """Kills the process *pid* when told, whoever we are by then; close it where user code runs.

    Raises:
      ProcessLookupError: there is no such process.
    """

    def __init__(self, pid: int) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        # One descriptor is both ends: were they two, closing the writing one first would make the other readable, that is, kill.
        self._fd = os.open(f"/proc/self/fd/{read}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(read)
        os.close(write)
        fcntl.fcntl(self._fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(self._fd, fcntl.F_SETOWN, pid)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)

    def kill(self) -> None:
        """Send it SIGKILL."""
        os.write(self._fd, b"!")

    def close(self) -> None:
        """Give the switch up, without a signal; the copies that other processes have of it stay good."""
        os.close(self._fd)
