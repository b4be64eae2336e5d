"""The queue in numbers, in the contract's form: for the view and for `manage.py reproq stats`.

Nothing here counts a large table: waiting and running runs are counted where the store keeps only them, ended ones in a history of up to
64 MiB (above that a sample stands for it), failures among the latest runs.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import Count, Max
from django.utils import timezone

from reproq_django.inserting import ask_store
from reproq_django.models import PeriodicTask, QueueControl, RunState, TaskRun, Worker
from reproq_django.routing import is_postgres, queue_aliases
from reproq_supervisor.store.commands import QueueStats, counting

ALIVE = timedelta(minutes=2)
_LATEST_RUNS = 100_000
_TOP = 5
_MOST_WORKERS = 1000
_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "off", "disabled", "none")

Counts = dict[str, int]


def stats_aliases() -> list[str]:
    """Return the databases that REPROQ_STATS_DATABASES means: names, or "*" for all that queues are in; by default the first of them."""
    chosen = getattr(settings, "REPROQ_STATS_DATABASES", None)
    if not chosen:
        return queue_aliases()[:1]
    names = [chosen] if isinstance(chosen, str) else [str(name) for name in chosen]
    return queue_aliases() if "*" in names else names


def stats_of(aliases: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the state of these databases together, in the form of the contract.

    Raises:
      django.db.DatabaseError: one cannot be asked.
    """
    parts = [_of_database(alias) for alias in aliases or stats_aliases()]
    tasks: Counter[str] = Counter()
    queues: dict[str, Counter[str]] = {}
    failing: Counter[str] = Counter()
    for part in parts:
        tasks.update(part["tasks"])
        failing.update(part["failing"])
        for queue, counts in part["queues"].items():
            queues.setdefault(queue, Counter()).update(counts)
    workers = [worker for part in parts for worker in part["workers"]]
    since = timezone.now() - ALIVE
    alive = sum(worker["last_seen_at"] >= since for worker in workers)
    return {
        "tasks": dict(tasks),
        "queues": {queue: dict(counts) for queue, counts in sorted(queues.items())},
        "workers": workers,
        "periodic": [each for part in parts for each in part["periodic"]],
        "queue_controls": [each for part in parts for each in part["queue_controls"]],
        "worker_health": {"alive": alive, "dead": len(workers) - alive},
        "scheduler": _scheduler(parts, environ),
        "top_failing": [{"task_path": path, "count": count} for path, count in failing.most_common(_TOP)],
        "databases": [_summary(part) for part in parts],
    }


def _of_database(alias: str) -> dict[str, Any]:
    queues = _by_store(alias) if is_postgres(alias) else _by_models(alias)
    tasks: Counter[str] = Counter()
    for counts in queues.values():
        tasks.update(counts)
    return {
        "alias": alias,
        "tasks": dict(tasks),
        "queues": queues,
        "workers": _rows(Worker, alias, "worker_id", "hostname", "concurrency", "queues", "last_seen_at", "version", order="-last_seen_at"),
        "periodic": _rows(PeriodicTask, alias, "name", "cron_expr", "enabled", "next_run_at", "queue_name", order="name"),
        "queue_controls": _rows(QueueControl, alias, "queue_name", "paused", "paused_at", "reason", "updated_at", order="queue_name"),
        "failing": _failing(alias),
    }


def _rows(model: Any, alias: str, *names: str, order: str) -> list[dict[str, Any]]:
    return [{**row, "database": alias} for row in model.objects.using(alias).order_by(order).values(*names)[:_MOST_WORKERS]]


def _by_store(alias: str) -> dict[str, Counts]:
    return {queue: _counts_of(stats) for queue, stats in ask_store(alias, counting()).queues.items()}


def _counts_of(stats: QueueStats) -> Counts:
    counts = {
        # A run that waits for its time, a key or a rate has the status READY in the contract's words.
        RunState.READY: stats.ready + stats.parked,
        RunState.WAITING: stats.waiting,
        RunState.RUNNING: stats.running,
        RunState.SUCCESSFUL: stats.ended.successful,
        RunState.FAILED: stats.ended.failed,
        RunState.CANCELLED: stats.ended.cancelled,
    }
    return {str(state): count for state, count in counts.items() if count}


def _by_models(alias: str) -> dict[str, Counts]:
    queues: dict[str, Counts] = {}
    for queue, status, count in TaskRun.objects.using(alias).values_list("queue_name", "status").annotate(Count("result_id")).order_by():
        queues.setdefault(queue, {})[status] = count
    return queues


def _failing(alias: str) -> Counts:
    runs = TaskRun.objects.using(alias)
    latest = runs.aggregate(Max("result_id"))["result_id__max"] or 0
    failed = runs.filter(result_id__gt=latest - _LATEST_RUNS, status=RunState.FAILED)
    return dict(failed.values_list("task_path").annotate(Count("result_id")).order_by("-result_id__count", "task_path")[:_TOP])


def _scheduler(parts: Sequence[Mapping[str, Any]], environ: Mapping[str, str]) -> dict[str, Any]:
    mode = environ.get("REPROQ_SCHEDULER_MODE") or "beat"
    configured = mode == "beat" and environ.get("REPROQ_BEAT_CMD", "on").strip().lower() not in _OFF
    low_memory = _is_on("LOW_MEMORY_MODE", environ)
    has_pg_cron = any(_has_pg_cron(part["alias"]) for part in parts)
    known = "beat" if configured else "pg_cron" if mode in ("pg_cron", "cron") else "disabled"
    found = {
        "mode": known,
        "low_memory": low_memory,
        "beat_enabled": configured and not low_memory,
        "beat_configured": configured,
        "pg_cron_available": has_pg_cron,
    }
    if known == "pg_cron" and mode == "pg_cron" and not has_pg_cron:
        found["warning"] = "REPROQ_SCHEDULER_MODE is pg_cron, which this server does not have: no schedule fires"
    elif known == "disabled" and any(each["enabled"] for part in parts for each in part["periodic"]):
        found["warning"] = "there are schedules, and beat is switched off: none fires"
    return found


def _has_pg_cron(alias: str) -> bool:
    if not is_postgres(alias):
        return False
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_cron')")
        return bool(cursor.fetchone()[0])


def _is_on(name: str, environ: Mapping[str, str]) -> bool:
    value = getattr(settings, name, None)
    return str(environ.get(name, "") if value is None else value).strip().lower() in _ON


def _summary(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "alias": part["alias"],
        "tasks": part["tasks"],
        "queues": part["queues"],
        "workers": len(part["workers"]),
        "periodic": len(part["periodic"]),
    }
