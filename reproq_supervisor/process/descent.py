"""Kill a process of somebody else's tree, and never one that only has its number."""

import os
import signal

from reproq_supervisor.process.proctable import parent_of


def kill_descendant(pid: int, ancestor: int) -> bool:
    """Send SIGKILL to *pid* if it descends from *ancestor*; answer whether it was sent.

    The descent is looked at through a pidfd that was opened before: should the process be gone and its number be somebody else's by the
    time of the signal, nobody gets it.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not descends(pid, ancestor):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True


def descends(pid: int, ancestor: int) -> bool:
    """Answer whether *ancestor* is above *pid*, at any distance."""
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        seen.add(pid)
        pid = parent_of(pid)
        if pid == ancestor:
            return True
    return False
