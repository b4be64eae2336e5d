"""Signals: handlers set flags, a pipe wakes the loop, the flags are the truth.

Signals coalesce and the pipe may be full, so neither is counted: a flag means "look again".
"""

import os
import signal
from types import FrameType

from reproq_supervisor.core.supervision.facts import SignalName, SignalReceived

_MEANINGFUL = {
    signal.SIGTERM: SignalName.TERM,
    signal.SIGINT: SignalName.INT,
    signal.SIGQUIT: SignalName.QUIT,
    signal.SIGHUP: SignalName.HUP,
    signal.SIGUSR1: SignalName.USR1,
    signal.SIGUSR2: SignalName.USR2,
}
_PIPE_BYTES = 4096


class SignalFlags:
    """Installed once, before anything is started, so that a signal during the boot is kept for the loop."""

    def __init__(self) -> None:
        self._flags: dict[int, bool] = {}
        self.wake_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in (*_MEANINGFUL, signal.SIGCHLD):
            signal.signal(signum, self._note)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._flags[signum] = True

    def take(self) -> list[SignalReceived]:
        """Return what arrived since the last call, the gentlest end first."""
        try:
            while len(os.read(self.wake_fd, _PIPE_BYTES)) == _PIPE_BYTES:
                pass
        except BlockingIOError:
            pass
        return [SignalReceived(name) for signum, name in _MEANINGFUL.items() if self._flags.pop(signum, False)]

    def take_child_died(self) -> bool:
        """Answer whether any child has died since the last call."""
        return self._flags.pop(signal.SIGCHLD, False)

    def close(self) -> None:
        """Give the pipe back; handlers stay, since a late signal must not kill us on the last lines."""
        signal.set_wakeup_fd(-1)
        os.close(self.wake_fd)
        os.close(self._write_fd)
