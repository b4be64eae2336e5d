"""Start a program that is killed when we die.

`posix_spawn` cannot arm a death signal, so this forks: only a process with one thread may call it.
"""

import os
import signal
import struct
from collections.abc import Sequence
from typing import NoReturn

from reproq_supervisor.process.masks import unblock_signals
from reproq_supervisor.process.prctl import set_pdeathsig

_ERRNO = struct.Struct("=i")


def start_bound(argv: Sequence[str], stdin_fd: int | None) -> int:
    """Start *argv* in our session and group, with our standard streams and environment and no signal held back; return its pid.

    Args:
      argv: argv[0] is the full path of the program.
      stdin_fd: its standard input instead of ours.

    Raises:
      OSError: it cannot be started; nothing is left of it.
    """
    failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
    own_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(argv, own_pid, stdin_fd, failed_write)
    os.close(failed_write)
    failed = os.read(failed_read, _ERRNO.size)  # the end of it: the exec closed the other one
    os.close(failed_read)
    if failed:
        os.waitpid(pid, 0)
        (number,) = _ERRNO.unpack(failed)
        raise OSError(number, os.strerror(number))
    return pid


def _become(argv: Sequence[str], parent_pid: int, stdin_fd: int | None, failed_fd: int) -> NoReturn:
    try:
        set_pdeathsig(signal.SIGKILL, parent_pid=parent_pid)
        if stdin_fd is not None:
            os.dup2(stdin_fd, 0)
        # Python ignores these two for itself, and ignored signals survive an exec.
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signum, signal.SIG_DFL)
        unblock_signals()
        os.execv(argv[0], list(argv))  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(failed_fd, _ERRNO.pack(error.errno or 0))
    finally:
        os._exit(127)
