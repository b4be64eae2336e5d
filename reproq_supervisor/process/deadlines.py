"""The deadline table: what a shard tells its nursery and executors through shared memory.

One 64-byte row per executor, written by the shard but for the last field:

    bytes 0-7    kill_at: boot-time seconds at which the nursery kills the executor; 0 = idle
    bytes 8-15   soft_seq: the hand-out that the next soft signal is meant for
    bytes 16-23  soft_reason: a `SoftReason`
    bytes 24-31  busy_seq: the hand-out that kept the loop busy when the executor (`mode: async`) was asked last; 0 = none

Aligned 8-byte stores are whole on the machines we run on. The nursery's reading is the second line: when it acts, the shard
has already failed to (frozen, or starved), so a value that is one update old is good enough: a living shard only moves
deadlines to a later time.
"""

import mmap
import os
import signal
import struct
from enum import IntEnum

ROW_BYTES = 64
_F8 = struct.Struct("=d")
_U8 = struct.Struct("=Q")

SOFT_SIGNAL = signal.SIGUSR1
"""Sent to an executor after `set_soft`: the running task is to stop."""


class SoftReason(IntEnum):
    """Why a running task is asked to stop."""

    TIMEOUT = 1
    CANCEL = 2
    DRAIN = 3
    LEASE_LOST = 4
    TERMINATED = 5  # a program that runs one task got a TERM, and is not told why
    BLOCKED = 6  # it keeps an executor from starting what others handed out: never asked for, only noted
    BEREFT = 7  # its nursery died, and it had started last: never asked for, only noted


class DeadlineTable:
    """A view of the table; create it in the shard, `attach` it elsewhere."""

    def __init__(self, fd: int, rows: int) -> None:
        self.fd = fd
        self.rows = rows
        self._memory = mmap.mmap(fd, rows * ROW_BYTES)

    @classmethod
    def create(cls, rows: int) -> "DeadlineTable":
        """Make a table of *rows* idle rows in anonymous shared memory."""
        fd = os.memfd_create("reproq-deadlines", os.MFD_CLOEXEC)
        os.ftruncate(fd, rows * ROW_BYTES)
        return cls(fd, rows)

    @classmethod
    def attach(cls, fd: int) -> "DeadlineTable":
        """View the table behind a descriptor that was received, and keep it from programs that are started here."""
        os.set_inheritable(fd, False)
        return cls(fd, os.fstat(fd).st_size // ROW_BYTES)

    def set_kill_at(self, row: int, boot_time_s: float) -> None:
        """Set when the nursery kills the executor of *row*; 0 for never."""
        _F8.pack_into(self._memory, row * ROW_BYTES, boot_time_s)

    def kill_at(self, row: int) -> float:
        """Return the boot time at which the executor of *row* is overdue, 0 for never."""
        return float(_F8.unpack_from(self._memory, row * ROW_BYTES)[0])

    def set_soft(self, row: int, seq: int, reason: SoftReason) -> None:
        """Say what the soft signal that follows is about."""
        _U8.pack_into(self._memory, row * ROW_BYTES + 16, reason)
        _U8.pack_into(self._memory, row * ROW_BYTES + 8, seq)

    def soft_reason(self, row: int, seq: int) -> SoftReason | None:
        """Return why hand-out *seq* is to stop, if the last soft signal for *row* is meant for it."""
        if _U8.unpack_from(self._memory, row * ROW_BYTES + 8)[0] != seq:
            return None
        return SoftReason(_U8.unpack_from(self._memory, row * ROW_BYTES + 16)[0] or SoftReason.TIMEOUT)

    def set_busy(self, row: int, seq: int) -> None:
        """Say which hand-out keeps the loop of this executor busy."""
        _U8.pack_into(self._memory, row * ROW_BYTES + 24, seq)

    def busy(self, row: int) -> int:
        """Return which hand-out kept the loop of an executor busy when it was asked last, 0 for none."""
        return int(_U8.unpack_from(self._memory, row * ROW_BYTES + 24)[0])

    def clear(self, row: int) -> None:
        """Make *row* idle."""
        self._memory[row * ROW_BYTES : (row + 1) * ROW_BYTES] = bytes(ROW_BYTES)
