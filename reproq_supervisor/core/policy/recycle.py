"""When an executor has done enough and is replaced by a fresh one."""

from dataclasses import dataclass
from enum import StrEnum

EXACT_AGAIN_S = 5.0
"""How old an exact measurement of memory may be before growth since then is not believed any more."""


class RecycleReason(StrEnum):
    """Which rule an executor has met; the words of the settings."""

    TASKS = "tasks"
    RSS = "rss"
    AGE = "age"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one executor may come to: tasks finished, private bytes, seconds of age; 0 is no limit."""

    tasks: int
    rss_bytes: int
    age_s: float

    def used_up(self, tasks: int, age_s: float, private_bytes: int) -> RecycleReason | None:
        """Return the first rule that is met, None while there is none."""
        if 0 < self.rss_bytes <= private_bytes:
            return RecycleReason.RSS
        if 0 < self.tasks <= tasks:
            return RecycleReason.TASKS
        if 0 < self.age_s <= age_s:
            return RecycleReason.AGE
        return None


@dataclass(frozen=True, slots=True)
class RecyclePolicy:
    """The pool's rules; 0 switches one off.

    Attributes:
      jitter: the largest part of each limit that is taken off for one executor.
      at_once: executors of the whole pool that may be on their way out at the same time.
    """

    tasks: int = 0
    rss_bytes: int = 0
    age_s: float = 0.0
    jitter: float = 0.1
    at_once: int = 1

    @property
    def is_off(self) -> bool:
        return not (self.tasks or self.rss_bytes or self.age_s)

    def allowance(self, draw: float) -> Allowance:
        """Return what one executor is allowed. Jitter only takes off, so that what the file says is never passed because of it.

        Args:
          draw: from [0, 1), drawn once for each executor; 0 takes nothing off.
        """
        part = 1.0 - self.jitter * draw
        # A limit that is set stays one: with all of it taken off it would be 0, which means none.
        tasks = max(1, round(self.tasks * part)) if self.tasks else 0
        rss_bytes = max(1, round(self.rss_bytes * part)) if self.rss_bytes else 0
        age_s = max(0.001, self.age_s * part) if self.age_s else 0.0
        return Allowance(tasks, rss_bytes, age_s)


@dataclass(frozen=True, slots=True)
class Measured:
    """Memory of one executor as it was measured exactly: its anonymous pages, and how many of those are its own."""

    anonymous_bytes: int = 0
    private_bytes: int = 0
    at_mono: float = float("-inf")

    def estimate(self, anonymous_bytes: int) -> int:
        """Return its private bytes by now: every page it took since is its own, but pages it shared may have become its own, too."""
        return min(anonymous_bytes, self.private_bytes + max(0, anonymous_bytes - self.anonymous_bytes))

    def is_good_enough(self, limit_bytes: int, anonymous_bytes: int, now: float) -> bool:
        """Answer whether it is surely, or by what is known of late, below the limit, so that no exact measurement is needed.

        Args:
          anonymous_bytes: what the cheap measurement says now; private memory cannot be more.
        """
        if anonymous_bytes < limit_bytes:
            return True
        return self.estimate(anonymous_bytes) < limit_bytes and now - self.at_mono < EXACT_AGAIN_S
