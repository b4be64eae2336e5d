"""One task for each queue, before thousands: may it run there, and does it reach us?"""

import time
from collections.abc import Callable, Sequence

from reproq_supervisor.cli.torture.session import Session
from reproq_supervisor.cli.torture.workload import TASK, Planned, run_of
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.runs import TERMINAL, ErrorKind, RunStatus
from reproq_supervisor.store.commands import RunView

NAME = "rehearsal"
_LOOK_EVERY_S = 0.02
# Longer than any back-off of a daemon that has just found its database again.
_WITHIN_S = 60.0


class NotReadyError(ReproqError):
    """The tasks of torture cannot run in this installation."""


def rehearse(session: Session, queues: Sequence[str], address: tuple[str, int], token: str, check: Callable[[], None]) -> None:
    """Run one task in each queue.

    Args:
      check: raises when waiting is in vain.

    Raises:
      NotReadyError: it says what to change.
    """
    runs = session.enqueue([run_of(Planned(NAME, queue), address, token, chaos=False) for queue in queues])
    deadline = time.monotonic() + _WITHIN_S
    for queue, run in zip(queues, runs, strict=True):
        while (view := session.result(run)) is None or view.status not in TERMINAL:
            check()
            if time.monotonic() > deadline:
                where = "gone" if view is None else f"{view.lane_state} {view.park_reason or ''}".strip()
                raise NotReadyError(
                    f"queue {queue}: expected a task to end within {_WITHIN_S:g} s, found it {where}; see: explain, queue list"
                )
            time.sleep(_LOOK_EVERY_S)
        if view.status != RunStatus.SUCCESSFUL:
            raise NotReadyError(_remedy(queue, view, address))


def _remedy(queue: str, view: RunView, address: tuple[str, int]) -> str:
    kinds = {error.get("kind") for error in view.errors_json}
    if ErrorKind.SECURITY_VIOLATION in kinds:
        allowed = TASK.rpartition(".")[0] + "."
        return (
            f"queue {queue}: expected app.allowed_task_modules to have {allowed!r}, found that its tasks are forbidden; add it and reload"
        )
    return (
        f"queue {queue}: expected a task to reach {address[0]}:{address[1]} and to succeed, got: {view.last_error}; "
        "--listen HOST names an address that its executors can reach"
    )
