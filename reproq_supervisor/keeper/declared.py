"""The schedules of this supervisor's configuration file, brought to the database at the start and whenever they change."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.keeper.duties import Ran
from reproq_supervisor.settings.cron import CronError, parse_schedule
from reproq_supervisor.store.keeper import KeeperStore


class DeclaredSchedules:
    """What the file says. Nothing is done before a file was heard of: a keeper without one must not remove what others declared."""

    def __init__(self, host: str) -> None:
        """Declare on behalf of *host*; files of the same path on different hosts are different files."""
        self._host = host
        self._path: str | None = None
        self._schedules: Mapping[str, Any] = {}

    def follow(self, message: Mapping[str, Any]) -> None:
        """Take over what a message of the supervisor says."""
        self._path = message.get("config_path")
        self._schedules = dict(message.get("schedules_settings") or {})

    async def declare(self, store: KeeperStore) -> Ran:
        """Bring the schedules, and take away those that the file no longer has."""
        if self._path is None:
            return Ran(0)
        now = await store.schedules.clock()
        wanted = {name: _columns(name, settings, now) for name, settings in self._schedules.items()}
        return Ran(await store.schedules.declare(f"{self._host}:{self._path}", json.dumps(wanted)))


def _columns(name: str, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the columns of a schedule, and its first firing."""
    return {
        "cron_expr": settings["cron"],
        "timezone": settings["timezone"],
        "task_path": settings["task"],
        "payload_json": {"args": json.loads(settings["args"]), "kwargs": json.loads(settings["kwargs"])},
        "queue_name": settings["queue"],
        "priority": settings["priority"],
        "max_attempts": settings["max_attempts"],
        "timeout_seconds": round(settings["timeout"]),
        "concurrency_key": settings["concurrency_key"],
        "concurrency_limit": settings["concurrency_limit"],
        "jitter_s": settings["jitter"],
        "overlap": settings["overlap"],
        "missed": settings["missed"],
        "enabled": settings["enabled"],
        "first": _first(name, settings, now),
    }


def _first(name: str, settings: Mapping[str, Any], now: datetime) -> str | None:
    """Return the first firing; for a line that this machine does not understand *now*, so that the beat tells why it is disabled."""
    try:
        first = next_firing(*parse_schedule(settings["cron"], settings["timezone"], name), now)
    except CronError:
        return now.isoformat()
    return None if first is None else first.isoformat()
