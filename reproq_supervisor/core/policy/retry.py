"""When a failed attempt may run again."""

from dataclasses import dataclass, replace

LONGEST_DELAY_S = 3650 * 86400.0
"""Ten years, as of every duration: what asks for more, infinity above all, means a run that would wait for ever."""


def asked_delay_s(value: object) -> float | None:
    """Return the delay that a task or program asked for, None (the policy's) for what is no number of seconds within bounds."""
    is_delay = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_DELAY_S
    return float(value) if is_delay else None  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delay before the next attempt, in seconds: *base_s*, doubled with every attempt, up to *cap_s*, spread by *jitter* (0.1 = ±10 %)."""

    base_s: float = 30.0
    cap_s: float = 3600.0
    jitter: float = 0.1

    def of_queue(self, base_s: float | None, cap_s: float | None) -> "RetryPolicy":
        """Return this with what a queue says of its own; None: nothing."""
        return replace(self, base_s=self.base_s if base_s is None else base_s, cap_s=self.cap_s if cap_s is None else cap_s)

    def delay_s(self, attempt: int, draw: float) -> float:
        """Return the delay after failed attempt number *attempt* (from 1).

        Args:
          draw: from [0, 1); 0.5 means no spread.
        """
        # The power is bounded before it is computed: attempts have no bound of their own.
        doubled = self.base_s * 2.0 ** min(attempt - 1, 64)
        return min(doubled, self.cap_s) * (1 + self.jitter * (2 * draw - 1))
