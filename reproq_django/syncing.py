"""Brings the schedules that the code declares to the databases of their queues; what operators changed there stays.

Each schedule is declared on its own: one whose module was not imported today is not taken for removed.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections, transaction
from django.utils import timezone

from reproq_django.inserting import ask_store
from reproq_django.models import PeriodicTask
from reproq_django.recurring import Declared, declared
from reproq_django.routing import Routes, is_postgres
from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.settings.cron import parse_schedule
from reproq_supervisor.store.timetable import declaring

BY = "django:"
_NEVER = datetime(9999, 12, 31, tzinfo=timezone.get_fixed_timezone(0))


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync did with one schedule: `added`, `changed`, `unchanged` or `disabled`."""

    name: str
    outcome: str


def sync_recurring(alias: str, *, clear_missing: bool = False) -> list[Synced]:
    """Bring what is declared for queues of the database *alias*.

    Args:
      clear_missing: whether schedules that earlier code declared, and the code does not any more, are disabled. Those that somebody made
        by hand, or by a configuration file, stay as they are.
    """
    routes = Routes.read()
    wanted = [each for each in declared() if routes.database_of(each.queue_name) == alias]
    now = timezone.now()
    found = [Synced(each.key, _bring(alias, each, now)) for each in wanted]
    if clear_missing:
        ours = PeriodicTask.objects.using(alias).filter(declared_by__startswith=BY, enabled=True)
        for schedule in ours.exclude(name__in=[each.key for each in wanted]):
            _disable(alias, schedule)
            found.append(Synced(schedule.name, "disabled"))
    return found


def has_table(alias: str) -> bool:
    """Answer whether there are schedules in the database *alias*: it may be one that this application was not migrated in yet."""
    return PeriodicTask._meta.db_table in connections[alias].introspection.table_names()


def _bring(alias: str, each: Declared, now: datetime) -> str:
    columns = each.columns()
    first = next_firing(*parse_schedule(each.schedule, each.timezone, each.key), now)
    if not is_postgres(alias):
        return _bring_by_models(alias, each.key, columns, first)
    schedules = json.dumps({each.key: {**columns, "first": first and first.isoformat()}})
    return ask_store(alias, declaring(f"{BY}{each.key}", schedules)).get(each.key, "unchanged")


def _disable(alias: str, schedule: PeriodicTask) -> None:
    """Disable it as the code would have done, so that the code can have it back."""
    schedule.enabled = False
    schedule.declared = {**(schedule.declared or {}), "enabled": False}
    schedule.save(using=alias, update_fields=["enabled", "declared", "updated_at"])


def _bring_by_models(alias: str, name: str, columns: dict[str, Any], first: datetime | None) -> str:
    """The rule of the store's own function, for databases where nobody fires schedules."""
    own = {"declared": columns, "declared_by": f"{BY}{name}"}
    with transaction.atomic(using=alias):
        row, is_new = PeriodicTask.objects.using(alias).get_or_create(
            name=name, defaults={**columns, **own, "next_run_at": first or _NEVER}
        )
        if is_new:
            return "added"
        if row.declared == columns:
            return "unchanged"
        before = row.declared or {}
        for column, value in columns.items():
            if column in before and before[column] != value and getattr(row, column) == before[column]:
                setattr(row, column, value)
                if column in ("cron_expr", "timezone"):
                    row.next_run_at = first or _NEVER
        row.declared = own["declared"]
        if row.declared_by is not None:  # what somebody had made before stays his
            row.declared_by = own["declared_by"]
        row.save(using=alias)
        return "changed"
