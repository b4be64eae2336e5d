"""Patience of the service manager: asked for again and again while something takes its time, and by its own deadlines ends."""

from reproq_supervisor.core.supervision.commands import Notify
from reproq_supervisor.core.supervision.state import State

EXTEND_EVERY_S = 2.0
EXTEND_BY_USEC = 10_000_000
"""Only renewals within the extended time count, so it is several times the interval."""


def ask_for_patience(state: State, now: float) -> None:
    """Ask for more time during start, reload and stop; each of them ends by deadlines of ours."""
    if state.exited or now < state.extended_mono + EXTEND_EVERY_S:
        return
    if state.stopping is not None:
        left = sum(1 for process in state.roster if process.alive)
        words = f"stopping: {left} processes left"
    elif not state.up:
        words = "starting"
    elif state.operation is not None and not state.operation.only_plans:
        words = f"{state.operation.what}: {state.operation.phase.value}"
    else:
        return
    state.extended_mono = now
    state.do(Notify((("EXTEND_TIMEOUT_USEC", str(EXTEND_BY_USEC)), ("STATUS", words))))
