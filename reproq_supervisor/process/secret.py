"""A secret as a descriptor: memory that only its holders can read and nobody can change; it is in no argument and no environment."""

import fcntl
import os

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def keep_secret(text: str) -> int:
    """Return a new descriptor of memory that holds *text*; programs that are started do not inherit it."""
    fd = os.memfd_create("reproq-secret", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, text.encode())
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def read_secret(fd: int) -> str:
    """Return the text behind *fd*, which may be shared with other processes."""
    return os.pread(fd, os.fstat(fd).st_size, 0).decode()
