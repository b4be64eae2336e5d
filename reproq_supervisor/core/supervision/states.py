"""The states of one process of ours, and the only table that moves it between them.

    STARTING ──► BOOTING ──► READY ──► DRAINING ──► STOPPING ──► LINGERING ──► GONE
        │           └───────────┴──────────┴────────────┴────────────┴───────────▲
        └────────────────────────────────────────────────────────────────────────┘

DRAINING was asked to finish; STOPPING is about to be killed, or has been; LINGERING has exited itself, but processes that it left
behind (its nursery) are still to be reaped, so nothing that it leased may be given to others yet.
"""

from enum import StrEnum


class ProcessState(StrEnum):
    """Where a process is in its life."""

    STARTING = "starting"
    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    LINGERING = "lingering"
    GONE = "gone"


class ProcessEvent(StrEnum):
    """What moves a process on."""

    STARTED = "started"
    START_FAILED = "start_failed"
    BECAME_READY = "became_ready"
    DRAIN_ASKED = "drain_asked"
    KILL_DECIDED = "kill_decided"
    EXITED = "exited"
    EXITED_LEAVING_OTHERS = "exited_leaving_others"
    OTHERS_REAPED = "others_reaped"


class IllegalTransitionError(AssertionError):
    """A bug: the table has no such pair."""

    def __init__(self, state: ProcessState, event: ProcessEvent) -> None:
        super().__init__(f"process state: {state.value} cannot take {event.value}")
        self.state = state
        self.event = event


_S, _E = ProcessState, ProcessEvent

TABLE: dict[tuple[ProcessState, ProcessEvent], ProcessState] = {
    (_S.STARTING, _E.STARTED): _S.BOOTING,
    (_S.STARTING, _E.START_FAILED): _S.GONE,
    (_S.BOOTING, _E.BECAME_READY): _S.READY,
    (_S.BOOTING, _E.DRAIN_ASKED): _S.DRAINING,
    (_S.BOOTING, _E.KILL_DECIDED): _S.STOPPING,
    (_S.READY, _E.BECAME_READY): _S.READY,
    (_S.READY, _E.DRAIN_ASKED): _S.DRAINING,
    (_S.READY, _E.KILL_DECIDED): _S.STOPPING,
    (_S.DRAINING, _E.BECAME_READY): _S.DRAINING,  # it was on its way when we asked
    (_S.DRAINING, _E.KILL_DECIDED): _S.STOPPING,
    (_S.STOPPING, _E.BECAME_READY): _S.STOPPING,
    (_S.STOPPING, _E.KILL_DECIDED): _S.STOPPING,
    (_S.LINGERING, _E.OTHERS_REAPED): _S.GONE,
    **{(state, _E.EXITED): _S.GONE for state in (_S.BOOTING, _S.READY, _S.DRAINING, _S.STOPPING)},
    **{(state, _E.EXITED_LEAVING_OTHERS): _S.LINGERING for state in (_S.BOOTING, _S.READY, _S.DRAINING, _S.STOPPING)},
}

FILLING = frozenset({ProcessState.STARTING, ProcessState.BOOTING, ProcessState.READY})
"""A process in one of these fills its unit: no other of its generation is started for it."""

ALIVE = FILLING | {ProcessState.DRAINING, ProcessState.STOPPING}
"""The process itself has not exited."""


def advance(state: ProcessState, event: ProcessEvent) -> ProcessState:
    """Return the state that follows.

    Raises:
      IllegalTransitionError: the table has no such pair.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise IllegalTransitionError(state, event) from None
