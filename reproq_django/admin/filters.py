"""Filters of the list of runs, none of which reads the whole table to know what it can offer."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib.admin import SimpleListFilter
from django.db.models import Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone

from reproq_django.models import ACTIVE, PeriodicTask, QueueControl, RunState, Worker
from reproq_django.routing import is_postgres

_ACTIVE_RUNS = RawSQL("SELECT result_id FROM task_lane", ())
"""Those that have not ended, however long the history is."""


class StatusFilter(SimpleListFilter):
    """By status; runs that have not ended are read from the lane."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "not ended"), *RunState.choices]

    def queryset(self, request: Any, queryset: QuerySet) -> QuerySet:
        match self.value():
            case None:
                return queryset
            case "active":
                return _active(queryset).filter(status__in=ACTIVE)
            case value if value in ACTIVE:
                return _active(queryset).filter(status=value)
            case value:
                return queryset.filter(status=value)


class LeaseFilter(SimpleListFilter):
    """By what holds a run."""

    title = "lease"
    parameter_name = "lease_status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "active"), ("stale", "stale"), ("none", "none")]

    def queryset(self, request: Any, queryset: QuerySet) -> QuerySet:
        now = timezone.now()
        match self.value():
            case "active":
                return _active(queryset).filter(status=RunState.RUNNING, leased_until__gte=now)
            case "stale":
                return _active(queryset).filter(status=RunState.RUNNING, leased_until__lt=now)
            case "none":
                return queryset.filter(Q(leased_until=None) | ~Q(status=RunState.RUNNING))
            case _:
                return queryset


class QueueFilter(SimpleListFilter):
    """By queue: those of the settings, of schedules, of workers, and those that were paused once."""

    title = "queue"
    parameter_name = "queue_name"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        names = {"default", *_queues_of_settings()}
        names.update(QueueControl.objects.values_list("queue_name", flat=True))
        names.update(PeriodicTask.objects.values_list("queue_name", flat=True).distinct())
        for queues in Worker.objects.values_list("queues", flat=True):
            names.update(str(queue) for queue in queues or ())
        chosen = request.GET.get(self.parameter_name)
        return [(name, name) for name in sorted({*names, *([chosen] if chosen else [])})]

    def queryset(self, request: Any, queryset: QuerySet) -> QuerySet:
        return queryset.filter(queue_name=self.value()) if self.value() else queryset


class BackendFilter(SimpleListFilter):
    """By the backend that enqueued a run."""

    title = "backend"
    parameter_name = "backend_alias"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(getattr(settings, "TASKS", {}))]

    def queryset(self, request: Any, queryset: QuerySet) -> QuerySet:
        return queryset.filter(backend_alias=self.value()) if self.value() else queryset


def _queues_of_settings() -> Iterable[str]:
    for backend in getattr(settings, "TASKS", {}).values():
        yield from backend.get("QUEUES") or ()


def _active(queryset: QuerySet) -> QuerySet:
    return queryset.filter(pk__in=_ACTIVE_RUNS) if is_postgres(queryset.db) else queryset
