"""What a program that uses the product does: enqueue, follow, read results."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from reproq_supervisor.cli.demo.progress import Display, Queues, follow
from reproq_supervisor.cli.demo.workload import Planned, ping
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.runs import TERMINAL, RunId
from reproq_supervisor.store import commands
from reproq_supervisor.store.commands import RunView
from reproq_supervisor.store.connect import Connection

_PINGS = 50
_PING_TIMEOUT_S = 10.0
_PING_LOOK_EVERY_S = 0.002


class LostTaskError(ReproqError):
    """A task that was enqueued has no row, or does not end."""


def count_by_queue(planned: Sequence[Planned]) -> dict[str, int]:
    """Return how many tasks each queue is given."""
    return dict(Counter(each.run.queue_name for each in planned))


def run_all(
    connection: Connection, planned: Sequence[Planned], display: Display, check: Callable[[], None]
) -> list[tuple[Planned, RunView]]:
    """Enqueue everything in one transaction, wait until all has ended, and return how.

    Args:
      check: raises when waiting is in vain.
    """
    ids = commands.enqueue(connection, [each.run for each in planned])

    def look() -> Queues:
        check()
        return commands.stats(connection).queues

    follow(look, count_by_queue(planned), display)
    return [(each, _read(connection, run)) for each, run in zip(planned, ids, strict=True)]


def ping_one_by_one(connection: Connection, check: Callable[[], None]) -> list[RunView]:
    """Run tasks that do nothing, each enqueued when the one before has ended, and return how they ended."""
    return [_ping(connection, check) for _ in range(_PINGS)]


def _ping(connection: Connection, check: Callable[[], None]) -> RunView:
    (run,) = commands.enqueue(connection, [ping()])
    deadline = time.monotonic() + _PING_TIMEOUT_S
    while (view := _read(connection, run)).status not in TERMINAL:
        check()
        if time.monotonic() > deadline:
            raise LostTaskError(f"task {run}: expected to end within {_PING_TIMEOUT_S:g} s on an idle daemon, found {view.status}")
        time.sleep(_PING_LOOK_EVERY_S)
    return view


def _read(connection: Connection, run: RunId) -> RunView:
    view = commands.result(connection, run)
    if view is None:
        raise LostTaskError(f"task {run}: expected its row, found none")
    return view


def read_output(view: RunView) -> str:
    """Return what the last attempt printed; '' when there is no log."""
    try:
        return Path(view.logs_uri).read_text(errors="replace") if view.logs_uri else ""
    except OSError as error:
        return f"({view.logs_uri}: {error.strerror})"
