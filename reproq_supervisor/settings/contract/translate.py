"""Theirs into ours: one pool that does what the older worker would do, and what to tell about the rest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.settings.contract.dsn import Dsn, read_dsn
from reproq_supervisor.settings.contract.memory_log import NAME, memory_log_interval
from reproq_supervisor.settings.contract.values import Values
from reproq_supervisor.settings.contract.words import FLAGS
from reproq_supervisor.settings.fields import MAX_DURATION_S

POOL = "worker"
LOW_MEMORY_RSS = "256MiB"

_ON = ("1", "true", "yes", "on")
_MAX_GRACE_S = 10.0
_MAX_HEARTBEAT_S = 5.0
_PROGRAM = ("python-bin", "executor-module")
_ONLY_FOR_PROGRAMS = ("payload-mode", "max-stdout-bytes", "max-stderr-bytes")
_NO_EFFECT = {
    "max-payload-bytes": "a payload may always have 1 MiB",
    "max-attempts-default": "every task has a number of its own",
}


@dataclass(frozen=True, slots=True)
class Translation:
    """Settings by dotted key, as `load` takes them for flags, and lines of advice for the operator."""

    overrides: dict[str, Any]
    advice: tuple[str, ...]


def translate(values: Values, environ: Mapping[str, str]) -> Translation:
    """Return our settings for their *values*."""
    dsn = read_dsn(values.text("dsn"))
    low_memory = is_low_memory(environ)
    reclaim_s = values.number("reclaim-interval-seconds")
    overrides: dict[str, Any] = {
        "database": dsn.url,
        "store.listen": not low_memory,
        "store.prepare": dsn.prepares,
        "app.allowed_task_modules": values.texts("allowed-task-modules"),
        "app.django_settings_module": environ.get("DJANGO_SETTINGS_MODULE") or None,
        "logs_dir": values.text("logs-dir") or None,
        "shutdown_timeout": values.number("shutdown-timeout"),
        "pools": {POOL: _pool(values, low_memory=low_memory)},
        "queues": {name: {"priority_aging": values.number("priority-aging-factor")} for name in values.texts("queues")},
        "keeper.beat": False,
        # Never: another worker looks after them, which is what whoever says 0 has arranged.
        "keeper.reclaim_interval": reclaim_s or MAX_DURATION_S,
    }
    return Translation(overrides, (*_advise(values, dsn), *_advise_memory_log(environ)))


def is_low_memory(environ: Mapping[str, str]) -> bool:
    """Answer whether LOW_MEMORY_MODE is on."""
    return environ.get("LOW_MEMORY_MODE", "").strip().lower() in _ON


def _pool(values: Values, *, low_memory: bool) -> dict[str, Any]:
    lease_s = values.number("lease-seconds")
    return {
        "queues": values.texts("queues"),
        "executors": values.whole("concurrency"),
        "timeout": values.number("exec-timeout"),
        "lease": lease_s,
        "grace": min(_MAX_GRACE_S, lease_s / 3),
        # Their heartbeat renews leases, which ours does by itself; but nobody who asked for a short one wants to wait longer for a hang.
        "heartbeat": max(0.1, min(_MAX_HEARTBEAT_S, lease_s / 10, values.number("heartbeat-seconds") or _MAX_HEARTBEAT_S)),
        "poll": {"min": values.number("poll-min-backoff"), "max": values.number("poll-max-backoff")},
        "env": {"REPROQ_PROCESS_ROLE": values.text("process-role")},
        "recycle": {"rss": LOW_MEMORY_RSS if low_memory else 0},
        **(_program(values) if _has_program(values) else {}),
    }


def _has_program(values: Values) -> bool:
    """Answer whether somebody wants another program than the usual one for each task; warm executors do what the usual one does."""
    return any(values.is_changed(name) for name in _PROGRAM)


def _program(values: Values) -> dict[str, Any]:
    return {
        "isolation": "exec",
        "exec": {
            "command": [values.text("python-bin"), "-m", values.text("executor-module")],
            "payload": values.text("payload-mode"),
            "max_stdout": values.whole("max-stdout-bytes"),
            "max_stderr": values.whole("max-stderr-bytes"),
        },
    }


def _advise(values: Values, dsn: Dsn) -> Iterator[str]:
    """Yield what is accepted and does nothing, so that nobody waits for it."""
    metrics = [f"--{word.name}" for word in FLAGS if word.name.startswith("metrics-") and values.is_given(word.name)]
    if metrics:
        yield f"{', '.join(metrics)}: accepted, but there are no metrics yet in this version"
    for name in (name for name in _ONLY_FOR_PROGRAMS if values.is_changed(name) and not _has_program(values)):
        yield f"{values.origins[name]}: accepted without effect: tasks run in warm executors, which need no program"
    for name in (name for name in _NO_EFFECT if values.is_changed(name)):
        yield f"{values.origins[name]}: accepted without effect: {_NO_EFFECT[name]}"
    if _has_program(values):
        yield f"{', '.join(_PROGRAM)}: every task starts this program; without them tasks run in warm executors, which is many times faster"
    if values.is_given("heartbeat-seconds") and values.number("heartbeat-seconds") == 0:
        yield f"{values.origins['heartbeat-seconds']}: 0 does not switch renewal off: a lease is always renewed while its task runs"
    if dsn.dropped:
        yield f"{values.origins['dsn']}: left out {', '.join(dsn.dropped)}, which only the Go driver knows"


def _advise_memory_log(environ: Mapping[str, str]) -> Iterator[str]:
    try:
        memory_log_interval(environ)
    except ValueError:
        yield f"{NAME}: expected a duration such as 30s, or whole seconds, got {environ[NAME]!r}: memory is not logged"
