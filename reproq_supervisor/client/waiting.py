"""How a client waits for the end of runs: it looks, with growing pauses, and holds no connection in between.

There is no notification for the end of a run: one for each would halve the rate of short tasks. A look is one indexed read of the runs
that have not ended, however many are waited for.
"""

import time
from collections.abc import Iterator, Sequence

from reproq_supervisor.client.errors import UnknownRunError, WaitTimeoutError
from reproq_supervisor.client.result import TaskResult
from reproq_supervisor.core.runs import RunId

_FIRST_PAUSE_S = 0.01
_LAST_PAUSE_S = 1.0
_GROWTH = 1.3


def pauses(timeout_s: float | None) -> Iterator[float]:
    """Yield how long to wait before the next look, until the time is over; 0 comes last, for a look at the very end."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while deadline is None or (left := deadline - time.monotonic()) > 0:
        yield pause_s if deadline is None else min(pause_s, left)
        pause_s = min(_LAST_PAUSE_S, pause_s * _GROWTH)


def in_order(found: dict[RunId, TaskResult], runs: Sequence[RunId]) -> list[TaskResult]:
    """Return the results of *runs* in their order.

    Raises:
      UnknownRunError: one of them does not exist.
    """
    for run in runs:
        if run not in found:
            raise UnknownRunError(run)
    return [found[run] for run in runs]


def ended_or_late(results: list[TaskResult], timeout_s: float | None) -> list[TaskResult]:
    """Return *results* if all have ended.

    Raises:
      WaitTimeoutError: one has not, or was begun anew since it had.
    """
    late = [result for result in results if not result.has_ended]
    if late:
        first = late[0]
        raise WaitTimeoutError(
            [each.id for each in late], timeout_s or 0.0, f"{first.status} (attempt {first.attempts} of {first.max_attempts})"
        )
    return results
