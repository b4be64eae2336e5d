"""What differs between two resolved configurations, and what each difference asks for.

live: told to the processes that run; rolling: a new generation is started, proved healthy and put in the place of the old one;
restart: only a new start of the daemon does it. Standard library only: the supervisor imports it.
"""

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from reproq_supervisor.core.supervision.operation import Change
from reproq_supervisor.settings.masking import mask

_MISSING = object()


class ChangeClass(StrEnum):
    """What a difference asks for."""

    LIVE = "live"
    ROLLING = "rolling"
    RESTART = "restart"


# Every setting, with "*" for names that people choose; a test compares this with the models. An entry for a whole mapping is for its
# coming or going.
CLASSES: dict[str, ChangeClass] = {
    "database": ChangeClass.RESTART,  # every lease and every waiting task lives there
    "store.listen": ChangeClass.ROLLING,
    "store.prepare": ChangeClass.ROLLING,
    "app.path": ChangeClass.ROLLING,
    "app.preload": ChangeClass.ROLLING,
    "app.allowed_task_modules": ChangeClass.ROLLING,
    "app.django_settings_module": ChangeClass.ROLLING,
    "logs_dir": ChangeClass.ROLLING,
    "logs.format": ChangeClass.LIVE,
    "logs.level": ChangeClass.LIVE,
    "shutdown_timeout": ChangeClass.LIVE,
    "pools.*": ChangeClass.ROLLING,
    "pools.*.queues.*": ChangeClass.LIVE,
    "pools.*.shards": ChangeClass.LIVE,  # some come or go, the others stay
    "pools.*.executors.min": ChangeClass.LIVE,
    "pools.*.executors.max": ChangeClass.LIVE,
    "pools.*.weight": ChangeClass.LIVE,
    "pools.*.mode": ChangeClass.ROLLING,
    "pools.*.slots.min": ChangeClass.ROLLING,
    "pools.*.slots.max": ChangeClass.ROLLING,
    "pools.*.isolation": ChangeClass.ROLLING,
    "pools.*.exec.command": ChangeClass.ROLLING,
    "pools.*.exec.payload": ChangeClass.ROLLING,
    "pools.*.exec.max_stdout": ChangeClass.ROLLING,
    "pools.*.exec.max_stderr": ChangeClass.ROLLING,
    "pools.*.drain_target": ChangeClass.LIVE,
    "pools.*.timeout": ChangeClass.LIVE,
    "pools.*.grace": ChangeClass.LIVE,
    "pools.*.lease": ChangeClass.ROLLING,  # leases already taken have the old length, and deadlines hang on it
    "pools.*.recycle.tasks": ChangeClass.LIVE,
    "pools.*.recycle.rss": ChangeClass.LIVE,
    "pools.*.recycle.age": ChangeClass.LIVE,
    "pools.*.recycle.jitter": ChangeClass.LIVE,
    "pools.*.recycle.at_once": ChangeClass.LIVE,
    "pools.*.retry.base": ChangeClass.LIVE,
    "pools.*.retry.cap": ChangeClass.LIVE,
    "pools.*.retry.jitter": ChangeClass.LIVE,
    "pools.*.poll.min": ChangeClass.LIVE,
    "pools.*.poll.max": ChangeClass.LIVE,
    "pools.*.nice": ChangeClass.ROLLING,
    "pools.*.cpus": ChangeClass.ROLLING,
    "pools.*.limits.address_space": ChangeClass.ROLLING,
    "pools.*.limits.data": ChangeClass.ROLLING,
    "pools.*.limits.open_files": ChangeClass.ROLLING,
    "pools.*.limits.processes": ChangeClass.ROLLING,
    "pools.*.limits.core": ChangeClass.ROLLING,
    "pools.*.limits.cpu_time": ChangeClass.ROLLING,
    "pools.*.umask": ChangeClass.ROLLING,
    "pools.*.user": ChangeClass.ROLLING,
    "pools.*.task_database": ChangeClass.ROLLING,
    "pools.*.env.*": ChangeClass.ROLLING,
    "pools.*.boot_timeout": ChangeClass.LIVE,
    "pools.*.heartbeat": ChangeClass.ROLLING,  # both ends of a heartbeat must agree, and one would hear of it first
    "pools.*.quarantine.exits": ChangeClass.LIVE,
    "pools.*.quarantine.window": ChangeClass.LIVE,
    "budget.executors": ChangeClass.LIVE,
    "budget.memory": ChangeClass.LIVE,
    "budget.connections": ChangeClass.LIVE,
    "queues.*": ChangeClass.LIVE,
    "queues.*.priority_aging": ChangeClass.LIVE,
    "queues.*.retry_base": ChangeClass.LIVE,
    "queues.*.retry_cap": ChangeClass.LIVE,
    "schedules.*": ChangeClass.LIVE,
    "schedules.*.cron": ChangeClass.LIVE,
    "schedules.*.task": ChangeClass.LIVE,
    "schedules.*.args": ChangeClass.LIVE,
    "schedules.*.kwargs": ChangeClass.LIVE,
    "schedules.*.timezone": ChangeClass.LIVE,
    "schedules.*.jitter": ChangeClass.LIVE,
    "schedules.*.overlap": ChangeClass.LIVE,
    "schedules.*.missed": ChangeClass.LIVE,
    "schedules.*.enabled": ChangeClass.LIVE,
    "schedules.*.queue": ChangeClass.LIVE,
    "schedules.*.priority": ChangeClass.LIVE,
    "schedules.*.max_attempts": ChangeClass.LIVE,
    "schedules.*.timeout": ChangeClass.LIVE,
    "schedules.*.concurrency_key": ChangeClass.LIVE,
    "schedules.*.concurrency_limit": ChangeClass.LIVE,
    "keeper.beat": ChangeClass.LIVE,
    "keeper.beat_interval": ChangeClass.LIVE,
    "keeper.reclaim_interval": ChangeClass.LIVE,
    "keeper.retention.successful": ChangeClass.LIVE,
    "keeper.retention.failed": ChangeClass.LIVE,
    "keeper.retention.cancelled": ChangeClass.LIVE,
    "web.listen": ChangeClass.RESTART,
    "web.auth_token": ChangeClass.RESTART,
    "web.allow_cidrs": ChangeClass.RESTART,
    "web.tls": ChangeClass.RESTART,
    "control.socket": ChangeClass.RESTART,  # whoever waits for the answer waits there
}
# Below these stand names that people choose.
_NAMED = frozenset(pattern.removesuffix(".*") for pattern in CLASSES if pattern.endswith(".*"))


def classify(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return what differs between two configurations in wire form, in the order of the old one; their `runtime` is not compared.

    A pool or queue that came or went is one change, `pools.mail`, with None on the side where it is not. Secrets are masked.
    """
    return [
        Change(key, how.value, *(None if side is _MISSING else mask(key, side) for side in (before, after)))
        for key, how, before, after in _differences("", "", _without_runtime(old), _without_runtime(new))
    ]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return a short name that two configurations in wire form share only when `classify` finds no difference."""
    import hashlib  # here, because it brings OpenSSL into the supervisor, which only classifies

    text = json.dumps(_without_runtime(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _differences(key: str, pattern: str, old: object, new: object) -> Iterator[tuple[str, ChangeClass, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{pattern}.{'*' if pattern in _NAMED else name}".removeprefix(".")
            yield from _differences(f"{key}.{name}".removeprefix("."), inner, old.get(name, _MISSING), new.get(name, _MISSING))
    elif type(old) is not type(new) or old != new:
        # A key that only one of two versions of the program knows is left to a new start.
        yield key, CLASSES.get(pattern, ChangeClass.RESTART), old, new


def _without_runtime(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "runtime"}
