"""End the process groups of dead executors: their numbers stay theirs until the leader is reaped."""

import os
import signal


def kill_group(leader: int) -> None:
    """Kill a whole group; its leader is dead but unreaped, so the number is still its own."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def reap_group(leader: int) -> int:
    """Kill the group of a killed executor that fell to us, and reap its leader; -9 if the nursery did both before."""
    try:
        # Without reaping: the group is killed while its number is surely its own.
        os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return -signal.SIGKILL
    kill_group(leader)
    _, status = os.waitpid(leader, 0)
    return os.waitstatus_to_exitcode(status)
