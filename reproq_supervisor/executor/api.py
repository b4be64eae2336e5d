"""What task code may use to stop or steer its run; `context` has what it can ask about it."""

from reproq_supervisor.core.policy.retry import LONGEST_DELAY_S


class SoftTimeout(BaseException):
    """Raised in the main thread of a task that ran into its time limit, was cancelled, or must leave for a drain.

    Catch it to clean up, then let it pass: the hard kill follows after the pool's `grace`. It is no `Exception`, so that a broad handler in
    task code does not swallow it.

    Attributes:
      reason: `timeout`, `cancel`, `drain` or `lease_lost`; `terminated` in a program of its own (`isolation: exec`), which is not told why.
    """

    def __init__(self, reason: str = "timeout") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Exception):
    """Raise it to fail this attempt and say when the next may start.

    A delay that is no number of seconds, or longer than ten years, is an error where it is said, as any other of the task. One that has
    passed already means at once.
    """

    delay_s: float | None = None  # for classes of the application that call no __init__ of ours

    def __init__(self, message: str = "the task asked for a retry", *, delay_s: float | None = None) -> None:
        super().__init__(message)
        self.delay_s = None if delay_s is None else _seconds(delay_s)


def _seconds(delay_s: float) -> float:
    seconds = float(delay_s)
    if not seconds <= LONGEST_DELAY_S:
        raise ValueError(f"delay_s: expected at most {LONGEST_DELAY_S:.0f} s (ten years), got {delay_s!r}")
    return max(0.0, seconds)


class Fail(Exception):
    """Raise it to fail the run for good: no attempt is left."""
