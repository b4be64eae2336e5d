"""What children say, and what follows from it."""

from typing import Any

from reproq_supervisor.core.supervision import rolling, sharing, telling
from reproq_supervisor.core.supervision.commands import ForgetWorkers
from reproq_supervisor.core.supervision.events import (
    ChildEvent,
    DeadWorkersReleased,
    MessageIgnored,
    ProcessFailed,
)
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.readiness import become_ready
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.units import Role

MAX_REASON_CHARS = 2000


def hear(state: State, process: Process, message: dict[str, Any], now: float) -> None:
    """Take one frame of a child. What cannot be understood is logged and has no effect."""
    process.heard_mono = now
    kind = message.get("type")
    try:
        _hear(state, process, kind, message, now)
    except (KeyError, TypeError, ValueError) as error:
        state.emit(MessageIgnored(process.unit.name, f"{kind!r} frame: {type(error).__name__} {error}"))


def _hear(state: State, process: Process, kind: object, message: dict[str, Any], now: float) -> None:
    match kind:
        case "beat":
            pass
        case "snapshot":
            _take_snapshot(state, process, message["snapshot"], now)
        case "hello":
            process.hello_mono = process.boot_mono = now
            telling.tell_newcomer(state, process)
        case "nursery":
            process.nursery_pid = int(message["pid"])
        case "ready":
            become_ready(state, process, now)
        case "failed":
            process.failed_reason = str(message["reason"])[:MAX_REASON_CHARS]
            process.failed_permanently = bool(message.get("permanent", False))
            state.emit(ProcessFailed(process.unit.name, process.pid, process.failed_reason, process.failed_permanently))
        case "event":
            state.emit(ChildEvent(process.unit.name, process.pid, dict(message["event"])))
        case "released":
            worker_ids = [str(worker_id) for worker_id in message["worker_ids"]]
            state.dead_workers.release(worker_ids)
            state.do(ForgetWorkers(tuple(worker_ids)))
            state.emit(DeadWorkersReleased(len(worker_ids), int(message["count"])))
        case "settled":
            state.dead_workers.settle([str(worker_id) for worker_id in message["worker_ids"]])
        case "settings" | "problems" if process.unit.role is Role.LOADER:
            rolling.take_answer(state, process, message, now)
        case _:
            state.emit(MessageIgnored(process.unit.name, f"unknown type {kind!r}"))


def _take_snapshot(state: State, process: Process, snapshot: object, now: float) -> None:
    if not isinstance(snapshot, dict):
        raise TypeError("snapshot: expected an object")
    progress = int(snapshot.get("progress", 0))
    if progress != process.progress or not snapshot.get("running"):
        process.progress_mono, process.stalled = now, False
    process.snapshot, process.progress = snapshot, progress
    slots = (snapshot.get("slot_sizing") or {}).get("slots")
    if isinstance(slots, int):
        state.slots[process.unit] = slots
    if process.unit.role is Role.SHARD:
        sharing.share(state, process, now)
