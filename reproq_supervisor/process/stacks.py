"""Stacks on demand: a process of ours writes its Python stacks to the log when asked, even with a stuck main thread."""

import faulthandler
import os
import signal

STACK_SIGNAL = signal.SIGRTMIN + 1


def write_stacks_on_signal(log_fd: int = 2) -> None:
    """Write all stacks to *log_fd* on `STACK_SIGNAL`. The handler is C code: a thread stuck in C does not stop it."""
    faulthandler.register(STACK_SIGNAL, file=log_fd, all_threads=True)


def ask_for_stacks(pid: int) -> None:
    """Ask *pid* for its stacks; a process that is gone is no error."""
    try:
        os.kill(pid, STACK_SIGNAL)
    except ProcessLookupError:
        return
