"""Free a part of a memory file."""

import ctypes
import os

_KEEP_SIZE = 1
_PUNCH_HOLE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def free_beyond(fd: int, offset: int) -> None:
    """Free the memory of everything past *offset* (a multiple of the page size); the size stays, so that nothing written goes uncounted."""
    size = os.fstat(fd).st_size
    if size > offset and _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, size - offset) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"fallocate({fd}): {os.strerror(error)}")
