"""Messages to children, exactly as `docs/architecture.md` has them."""

from collections.abc import Mapping
from typing import Any

from reproq_supervisor.core.policy.budget import Grant
from reproq_supervisor.core.policy.shutdown import DrainTimes
from reproq_supervisor.core.supervision.plan import KEEPER_LIVENESS_S, PREPARE_TIMEOUT_S, Plan, Settings
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.units import Role

Message = dict[str, Any]

DRAIN = "drain"
QUIT = "quit"
PAUSE = {"type": "pause"}
RESUME = {"type": "resume"}
DUMP = {"type": "dump"}
REOPEN = {"type": "reopen"}


def start_message(
    plan: Plan, process: Process, pool_settings: Mapping[str, Any] | None, slots_before: int | None = None, budget: int | None = None
) -> Message:
    """Return the first message to a child.

    Args:
      pool_settings: the settings of a shard's pool with the operator's override in them.
      slots_before: the slots that were right for the shard's last process.
      budget: executors that it may have at first.
    """
    settings, runtime = plan.settings, plan.settings["runtime"]
    match process.unit.role:
        case Role.PREPARE:
            return {
                "type": "start",
                "dsn": runtime["dsn"],
                "create_database": True,
                # Some time is left to it for saying what was wrong.
                "timeout_s": PREPARE_TIMEOUT_S - 30.0,
            }
        case Role.LOADER:
            return {
                "type": "start",
                "config_path": runtime["config_path"],
                "overrides": runtime.get("overrides", {}),
                "runtime": runtime,
            }
        case _:
            pass
    unit = process.unit
    message: Message = {
        "type": "start",
        "role": unit.role.value,
        "child": unit.name,
        "pool": unit.pool or None,
        "shard": unit.shard,
        "shards": int(plan.pools[unit.pool]["shards"]) if unit.pool else 0,
        "generation": process.generation,
        "worker_id": process.worker_id,
        "dsn": runtime["dsn"],
        "runtime_dir": runtime["runtime_dir"],
        "workers_dir": workers_dir(plan.settings),
        "pool_settings": dict(pool_settings) if pool_settings is not None else None,
        "app": settings["app"],
        "heartbeat": float(plan.pools[unit.pool]["heartbeat"]) if unit.pool else KEEPER_LIVENESS_S / 3.0,
        "shutdown_timeout": plan.shutdown_timeout_s,
        "slots_before": slots_before,
        "budget": budget,
    }
    return message | shared_settings(plan)


def workers_dir(settings: Settings) -> str:
    """Return the folder of the marks that prove a worker's death."""
    return f"{settings['runtime']['state_dir']}/workers"


def shared_settings(plan: Plan) -> Message:
    """Return the part of the settings that every shard and the keeper get, at the start and when it changes."""
    settings = plan.settings
    return {
        "queues_settings": settings["queues"],
        "keeper_settings": settings["keeper"],
        "schedules_settings": settings.get("schedules", {}),
        "config_path": settings["runtime"].get("config_path"),
        "store": settings.get("store", {}),
        "logs_dir": settings["logs_dir"],
        "logs": settings.get("logs", {}),
    }


def adjust_message(plan: Plan, pool_settings: Mapping[str, Any] | None) -> Message:
    """Return the message that brings live changes to a shard or the keeper."""
    settings = dict(pool_settings) if pool_settings is not None else None
    return {"type": "adjust", "pool_settings": settings} | shared_settings(plan)


def budget_message(grant: Grant | None) -> Message:
    """Tell a shard how many executors it may have; None for as many as its settings say."""
    return {"type": "budget", "executors": None if grant is None else grant.executors}


def drain_message(times: DrainTimes) -> Message:
    """Ask a child to finish what it runs and leave; a later, shorter time replaces an earlier one."""
    return {"type": DRAIN, "timeout": round(times.timeout_s, 3), **_limits(times)}


def quit_message(times: DrainTimes) -> Message:
    """Ask a child to leave as soon as it can."""
    return {"type": QUIT, **_limits(times)}


def _limits(times: DrainTimes) -> Message:
    return {"grace": round(times.grace_s, 3), "within": round(times.kill_in_s, 3)}


def release_message(worker_ids: list[str]) -> Message:
    """Ask the keeper to release the leases of dead workers."""
    return {"type": "release_dead", "worker_ids": worker_ids}
