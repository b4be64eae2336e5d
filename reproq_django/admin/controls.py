"""Pages of what steers all workers: queues, rate limits; and of who they are."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.db import DEFAULT_DB_ALIAS, router
from django.db.models import QuerySet
from django.utils import timezone

from reproq_django import operations
from reproq_django.admin.paginator import UncountedList
from reproq_django.models import QueueControl, RateLimit, Worker, WorkflowRun
from reproq_supervisor.client.arguments import MOST_INT32

_ALIVE = timedelta(minutes=2)
_STALE = timedelta(minutes=10)


@admin.register(QueueControl)
class QueueControlAdmin(admin.ModelAdmin):
    """A queue is paused and resumed by action, or by the box of its page: both wake who sleeps on it."""

    list_display = ("queue_name", "paused", "paused_at", "reason", "updated_at")
    readonly_fields = ("paused_at", "created_at", "updated_at")
    ordering = ("queue_name",)
    actions = ("pause", "resume")

    def get_readonly_fields(self, request: Any, obj: Any = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "queue_name") if obj else self.readonly_fields

    def save_model(self, request: Any, obj: QueueControl, form: Any, change: bool) -> None:
        # Not saved as it is: both also say so to the workers, and a queue that is paused already keeps its time.
        alias = router.db_for_write(QueueControl, instance=obj) or DEFAULT_DB_ALIAS
        if obj.paused:
            operations.pause(alias, obj.queue_name, obj.reason)
        elif not operations.resume(alias, obj.queue_name):
            obj.save(using=alias, update_fields=["reason", "updated_at"] if change else None)

    @admin.action(description="Pause", permissions=["change"])
    def pause(self, request: Any, queryset: QuerySet) -> None:
        queues = list(queryset.values_list("queue_name", "reason"))
        for queue, reason in queues:
            operations.pause(queryset.db, queue, reason)
        self.message_user(request, f"Paused: {', '.join(queue for queue, _ in queues)}.")

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request: Any, queryset: QuerySet) -> None:
        resumed = [queue for queue in queryset.values_list("queue_name", flat=True) if operations.resume(queryset.db, queue)]
        self.message_user(request, f"Resumed: {', '.join(resumed) or 'none was paused'}.")


class LimitForm(forms.ModelForm):
    """A limit within the bounds that `limit set` has."""

    tokens_per_second = forms.FloatField(min_value=0, max_value=1e6)
    burst_size = forms.IntegerField(min_value=1, max_value=MOST_INT32, initial=1)


@admin.register(RateLimit)
class RateLimitAdmin(admin.ModelAdmin):
    """A limit that is saved begins with a full bucket."""

    form = LimitForm
    list_display = ("key", "tokens_per_second", "burst_size", "current_tokens", "last_refilled_at")
    fields = ("key", "tokens_per_second", "burst_size")
    ordering = ("key",)

    def get_readonly_fields(self, request: Any, obj: Any = None) -> tuple[str, ...]:
        return ("key",) if obj else ()

    def save_model(self, request: Any, obj: RateLimit, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        operations.set_limit(obj._state.db, obj.key, obj.tokens_per_second, obj.burst_size)


class _ReadOnly(admin.ModelAdmin):
    """Rows that only the store writes."""

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False


@admin.register(Worker)
class WorkerAdmin(_ReadOnly):
    """Who claims runs, and whether anything was heard of it."""

    list_display = ("worker_id", "hostname", "alive", "concurrency", "queues", "started_at", "last_seen_at", "version")
    ordering = ("-last_seen_at",)
    actions = ("delete_stale",)

    @admin.display(description="alive", boolean=True)
    def alive(self, worker: Worker) -> bool:
        return bool(worker.last_seen_at > timezone.now() - _ALIVE)

    @admin.action(description="Delete those that are gone for ten minutes", permissions=["delete"])
    def delete_stale(self, request: Any, queryset: QuerySet) -> None:
        count, _ = queryset.filter(last_seen_at__lt=timezone.now() - _STALE).delete()
        self.message_user(request, f"Deleted: {count}.")


@admin.register(WorkflowRun)
class WorkflowRunAdmin(_ReadOnly, UncountedList):
    """Chords, the latest first."""

    list_display = ("workflow_id", "status", "expected_count", "success_count", "failure_count", "callback_result_id", "created_at")
    list_filter = ("status",)
    search_fields = ("=workflow_id",)
    ordering = ("-created_at",)
    sortable_by = ()
