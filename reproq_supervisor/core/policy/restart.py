"""What follows the death of a process: start it again, after how long, or stop trying for a while.

Source of the rules: OTP's restart intensity (a pure function of restarts, now and period) and the half-open circuit breaker. Two
things that others get wrong are decided here: the count of failures in a row ends only with *sustained* health, never with the first
success, and the exits of a whole pool are counted together, so that a pool of many shards cannot hide a loop.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

EXIT_UNAVAILABLE = 69
EXIT_BUG = 70
EXIT_TRY_AGAIN = 75
EXIT_PERMANENT = 78


class ExitKind(StrEnum):
    """What an exit says about the one who left."""

    PLANNED = "planned"  # we asked for it, or it finished by itself after having been ready: free
    UNAVAILABLE = "unavailable"  # something it depends on is away: retried, never quarantined
    PERMANENT = "permanent"  # trying again cannot help
    ABNORMAL = "abnormal"  # counted


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The numbers of one group (a pool, the keeper, the database).

    Attributes:
      base_s, cap_s: first and longest pause before a restart.
      unavailable_cap_s: longest pause while a dependency is away; short, so that its return is noticed soon.
      exits, window_s: more than `allowed_exits` abnormal exits within the window mean quarantine.
      slots: how many processes the group has.
      probe_base_s, probe_cap_s: pause before the first and between later probes of a quarantined group.
    """

    exits: int = 5
    window_s: float = 60.0
    slots: int = 1
    base_s: float = 0.5
    cap_s: float = 60.0
    unavailable_cap_s: float = 5.0
    probe_base_s: float = 30.0
    probe_cap_s: float = 300.0

    @property
    def allowed_exits(self) -> int:
        """Grows with the root of the group's size: n independent failures are likelier, a common cause hits all at once."""
        return math.floor(self.exits * max(1.0, math.sqrt(self.slots)))


@dataclass(frozen=True, slots=True)
class RestartIn:
    """Start it again after that many seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Too many: probe it with one process after that many seconds."""

    probe_in_s: float


def judge_exit(code: int | None, *, asked: bool, hung: bool, failed_permanently: bool, may_end: bool) -> ExitKind:
    """Say what kind of exit it was.

    Args:
      code: exit code, None for a death by signal.
      asked: we had asked it to go; what happens on the way out is not held against it.
      hung: we killed it because it did not become ready or did not answer.
      may_end: to end without an error is no failure of it: it had become ready, or it is a one-shot child.
    """
    if asked and not hung:
        return ExitKind.PLANNED
    if hung:
        return ExitKind.ABNORMAL
    if code == EXIT_PERMANENT or failed_permanently:
        return ExitKind.PERMANENT
    if code in (EXIT_UNAVAILABLE, EXIT_TRY_AGAIN):
        return ExitKind.UNAVAILABLE
    if code == 0 and may_end:
        return ExitKind.PLANNED
    return ExitKind.ABNORMAL


def backoff_s(policy: RestartPolicy, failures: int, jitter: float, *, cap_s: float | None = None) -> float:
    """Return the pause after the *failures*th failure in a row: doubling from the base to the cap, up to half of it taken off.

    Args:
      jitter: drawn from [0, 1) by the caller; 0 means no spread.
    """
    cap = policy.cap_s if cap_s is None else cap_s
    # 2**60 seconds is past any cap; the bound keeps the power from growing without end.
    pause = min(cap, policy.base_s * 2.0 ** min(failures - 1, 60))
    return pause * (1.0 - jitter / 2.0)


def decide_restart(policy: RestartPolicy, failures: int, deaths: tuple[float, ...], now: float, jitter: float) -> RestartIn | Quarantine:
    """Decide what follows an abnormal exit.

    Args:
      failures: abnormal exits of this unit since it was last healthy, this one included.
      deaths: monotonic seconds of the group's abnormal exits, the one at *now* included.
      jitter: drawn from [0, 1) by the caller; 0 means no spread.
    """
    if len([died for died in deaths if died > now - policy.window_s]) > policy.allowed_exits:
        return Quarantine(probe_pause_s(policy, 0))
    return RestartIn(backoff_s(policy, failures, jitter))


def probe_pause_s(policy: RestartPolicy, failed_probes: int) -> float:
    """Return the pause before the next probe of a quarantined group."""
    return min(policy.probe_cap_s, policy.probe_base_s * 2.0 ** min(failed_probes, 60))


def healthy_after_s(policy: RestartPolicy, boot_s: float) -> float:
    """Return how long a process must have been ready before its earlier failures are forgotten.

    Never less than the longest pause, so that a process that dies at an interval cannot reset the count it is judged by.
    """
    return max(policy.cap_s, 10.0 * boot_s)
