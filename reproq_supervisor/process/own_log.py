"""Where a child logs: to what its parent logs to, also after that was moved away and opened again."""

import os
import stat

LOG_FD = 2


def follow_log_of(pid: int, fd: int = LOG_FD) -> bool:
    """Log from now on to the file that *pid*, our parent, logs to; answer whether we do.

    No name is needed, and none can be out of date: /proc opens the very file that the other descriptor has. A pipe or a terminal is
    left as it is, and so is everything when we are another user by now.
    """
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        fresh = os.open(f"/proc/{pid}/fd/{LOG_FD}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fresh).st_mode):
            return False
        os.dup2(fresh, fd, inheritable=True)
    finally:
        os.close(fresh)
    return True
