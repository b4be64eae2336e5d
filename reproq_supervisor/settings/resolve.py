"""Settings in the wire form that the daemon's processes share (docs/architecture.md, "Resolved settings")."""

from typing import Any

from reproq_supervisor.settings.model import Queue, Settings


def resolve(settings: Settings, runtime: dict[str, Any]) -> dict[str, Any]:
    """Return plain JSON data: durations in seconds, sizes in bytes, every default filled in.

    Every queue that a pool serves has its entry in `queues`, so that a setting taken out of the file goes back to its default.
    """
    resolved = settings.model_dump(mode="json")
    served = (name for pool in settings.pools.values() for name in pool.queues)
    for name in served:
        resolved["queues"].setdefault(name, Queue().model_dump(mode="json"))
    resolved["runtime"] = runtime
    return resolved
