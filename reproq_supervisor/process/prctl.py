"""The few Linux process attributes that Python's `os` does not offer."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: object) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def set_pdeathsig(signum: signal.Signals, *, parent_pid: int) -> None:
    """Ask the kernel for *signum* when our parent dies; send it ourselves if the parent is gone already.

    The setting belongs to the forking thread of the parent and is cleared by a change of uid: call this last.
    """
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signum))
    if os.getppid() != parent_pid:
        signal.raise_signal(signum)


def pdeathsig() -> int:
    """Return the signal armed by `set_pdeathsig`, 0 when none is."""
    value = ctypes.c_int()
    _prctl(_PR_GET_PDEATHSIG, ctypes.byref(value))
    return value.value


def allow_inspection() -> None:
    """Let our own user look into this process and let it leave a core file, which the kernel forbids after a change of user."""
    _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1))


def become_subreaper() -> None:
    """Adopt every descendant whose parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def set_name(name: str) -> None:
    """Set the kernel's name of this process (15 bytes), as `ps -o comm` shows it."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))
