"""Who has been silent for too long, and whether to believe it.

Readiness, liveness and progress are three different things: a process may boot too slowly, stop answering, or answer and finish
nothing. Only the first two are deadly, and not when the silence is our own (we overslept) or everybody's (the host is starved).
"""

from dataclasses import dataclass

OVERSLEPT_S = 1.0
"""A loop that wakes this much later than it asked stood still itself: what it missed says nothing about others."""

CASCADE_SHARE = 0.3
CASCADE_LEAST = 3
"""So many silent at once, and at least so many, mean the host rather than them. One or two frozen ones are always believed."""


@dataclass(frozen=True, slots=True)
class Spare:
    """Kill nobody until then."""

    until_mono: float


def slept_too_long_s(now: float, wake_at: float) -> float:
    """Return by how much the loop overslept, 0 when it did not."""
    late = now - wake_at
    return late if late > OVERSLEPT_S else 0.0


def judge_silence(silent: int, watched: int, window_s: float, now: float, *, spared_before: bool) -> Spare | None:
    """Decide whether those that are silent are spared for one window.

    Args:
      silent, watched: how many missed their deadline, of how many that have one.
      window_s: the longest liveness deadline among the silent.
      spared_before: they were spared once already and have stayed silent.
    """
    if spared_before or silent < CASCADE_LEAST or silent <= CASCADE_SHARE * watched:
        return None
    return Spare(now + window_s)
