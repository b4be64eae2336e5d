"""What `status` answers: the whole state as a person or a program wants it. The supervisor reports; it computes nothing."""

from typing import Any

from reproq_supervisor.core.supervision.health import Health
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.state import State
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import KEEPER, Role, Unit


def state_word(state: State) -> str:
    """Name the state of the daemon."""
    if state.stopping is not None:
        return "stopping"
    if not state.up:
        return "starting"
    if state.operation is not None and not state.operation.only_plans:
        return "reloading"
    return "running"


def status(state: State, now: float) -> dict[str, Any]:
    """Return the answer to `status`; times are seconds ago."""
    runtime = state.plan.settings["runtime"]
    return {
        "pid": state.pid,
        "version": state.version,
        "state": state_word(state),
        "uptime_s": round(now - state.began_mono, 1),
        "generation": state.generation,
        "config_path": runtime.get("config_path"),
        "control_socket": runtime.get("control_socket"),
        "embedded": state.plan.embedded is not None,
        "stopping": stopping(state, now),
        "children": [child(process, now) for process in state.roster],
        "pools": {name: pool(state, name, now) for name in state.plan.pools},
        "keeper": keeper(state, now),
        "dead_workers": len(state.dead_workers),
        "last_reload": last_reload(state, now),
    }


def stopping(state: State, now: float) -> dict[str, Any] | None:
    """Return how far the end has come, None when there is none."""
    end = state.stopping
    if end is None:
        return None
    left_s = round(max(0.0, end.deadline - now), 1)
    return {"why": end.why, "phase": end.phase.value, "quick": end.quick, "left_s": left_s}


def child(process: Process, now: float) -> dict[str, Any]:
    """Return one process."""
    return {
        "child": process.unit.name,
        "role": process.unit.role.value,
        "pool": process.unit.pool or None,
        "generation": process.generation,
        "pid": process.pid or None,
        "nursery_pid": process.nursery_pid or None,
        "worker_id": process.worker_id or None,
        "state": process.state.value,
        "uptime_s": round(now - process.started_mono, 1),
        "heard_s_ago": round(now - process.heard_mono, 1),
        "why": process.kill_why or process.failed_reason or None,
    }


def pool(state: State, name: str, now: float) -> dict[str, Any]:
    """Return one pool: its account, its size, and the latest snapshot of each shard."""
    shards = [process for process in state.roster.of_role(Role.SHARD) if process.unit.pool == name]
    settings = state.pool_settings(state.plan, name) or {}
    unit = Unit(Role.SHARD, name)
    generation = state.generation_of(unit)
    ready = [p for p in shards if p.state is ProcessState.READY and p.generation == generation]
    override = state.overrides.get(name)
    return {
        "generation": generation,
        "shards": int(settings["shards"]),
        "ready": len(ready),
        "draining": sum(1 for process in shards if process.state is ProcessState.DRAINING),
        "paused": name in state.paused,
        "queues": settings["queues"],
        "executors": settings["executors"],
        "override": None if override is None else {"executors": override.executors, "left_s": _seconds(override.until_mono - now)},
        "account": account(state.health(unit), now),
        "snapshots": {f"{p.unit.name}@{p.generation}": p.snapshot for p in shards if p.snapshot and p.alive},
    }


def account(health: Health, now: float) -> dict[str, Any]:
    """Return a group's account: is it in quarantine, and when is what tried again?"""
    return {
        "circuit": health.circuit.value,
        "reason": health.reason or None,
        "recent_exits": sum(1 for died in health.deaths if died > now - health.policy.window_s),
        "allowed_exits": health.policy.allowed_exits,
        "window_s": health.policy.window_s,
        "units": {
            unit.name: {
                "starts": each.starts,
                "failures": each.failures,
                "last_exit": each.last_cause or None,
                "last_exit_s_ago": round(now - each.last_death, 1) if each.last_cause else None,
            }
            for unit, each in health.units.items()
        },
    }


def keeper(state: State, now: float) -> dict[str, Any]:
    """Return the keeper: ready or not, its account and its snapshot."""
    process = state.keeper()
    return {
        "ready": process is not None,
        "account": account(state.health(KEEPER), now),
        "snapshot": process.snapshot if process is not None else {},
    }


def last_reload(state: State, now: float) -> dict[str, Any] | None:
    """Return how the last reload or restart ended, None before the first."""
    last = state.last_reload
    if last is None:
        return None
    return {
        "ok": last.ok,
        "what": last.what,
        "ended_s_ago": round(now - last.at_mono, 1),
        "code": last.code,
        "error": last.error or None,
        "changed": last.changed,
        "generation": last.generation,
        "source": last.source,
        "problems": list(last.problems),
    }


def _seconds(value: float) -> float | None:
    return None if value == float("inf") else round(value, 1)
