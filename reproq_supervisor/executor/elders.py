"""The nursery's eye on its parent's parent: a frozen shard cannot notice that the supervisor died, and its death signal stays pending.

supervisor dies ──► the shard ends by itself, and with it the nursery (its channel ends)
               └──► the shard is frozen: after a second the nursery kills it, and then the same follows
"""

import os

from reproq_supervisor.process.kill_switch import KillSwitch

SHARD_LEAVES_WITHIN_S = 1.0


class Elders:
    """The supervisor, watched, and the shard, which can be killed even by a nursery that has changed its user: make it before that."""

    def __init__(self, supervisor_pid: int, shard_pid: int) -> None:
        self._shard = KillSwitch(shard_pid)
        self.supervisor = os.pidfd_open(supervisor_pid)
        """Readable when the supervisor is dead."""
        self._kill_shard_mono: float | None = None

    def supervisor_died(self, now_mono: float) -> None:
        """Give the shard a moment to leave by itself."""
        self._kill_shard_mono = now_mono + SHARD_LEAVES_WITHIN_S

    def wait_s(self, now_mono: float) -> float | None:
        """Return the seconds until `look` has something to do, None for never."""
        return None if self._kill_shard_mono is None else max(0.0, self._kill_shard_mono - now_mono)

    def look(self, now_mono: float) -> None:
        """Kill the shard if its time is over; our channel then ends."""
        if self._kill_shard_mono is not None and now_mono >= self._kill_shard_mono:
            self._kill_shard_mono = None
            self._shard.kill()

    def close(self) -> None:
        """Give the descriptors back, in a forked child."""
        self._shard.close()
        os.close(self.supervisor)
