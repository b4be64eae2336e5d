"""Pages of runs: a list that is never counted, a page with everything about one run, and what operators do with them."""

import json
import uuid
from collections import Counter
from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.html import format_html

from reproq_django import operations
from reproq_django.admin.filters import BackendFilter, LeaseFilter, QueueFilter, StatusFilter
from reproq_django.admin.paginator import UncountedList
from reproq_django.models import RunState, TaskRun

_LARGE = ("spec_json", "return_json", "errors_json", "metadata_json", "worker_ids")
_COLOURS = {
    RunState.READY: "#417690",
    RunState.WAITING: "#888888",
    RunState.RUNNING: "#c27d1a",
    RunState.SUCCESSFUL: "#3b7f3b",
    RunState.FAILED: "#ba2121",
    RunState.CANCELLED: "#666666",
}
_HASH_CHARS = 64


@admin.register(TaskRun)
class TaskRunAdmin(UncountedList):
    """Nothing of a run is edited by hand: what can be done with it are the actions."""

    list_display = (
        *("result_id", "task_path", "badge", "lease", "lock_key", "concurrency", "queue_name", "priority", "enqueued_at", "duration"),
        *("attempts_of", "workflow_id"),
    )
    list_display_links = ("result_id", "task_path")
    list_filter = (StatusFilter, LeaseFilter, QueueFilter, BackendFilter)
    list_per_page = 50
    ordering = ("-result_id",)
    sortable_by = ("result_id",)
    search_fields = ("result_id",)
    search_help_text = "An id of a run or a workflow, a hash, the beginning of a task's path, a lock key, or who holds a run."
    actions = ("replay", "retry_failed", "discard_failed", "cancel", "delete_successful")

    def get_queryset(self, request: Any) -> QuerySet:
        return super().get_queryset(request).defer(*_LARGE)

    def get_search_results(self, request: Any, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Look by what is indexed, or by what the newest rows tell soon; nothing is searched for in the middle of texts."""
        word = search_term.strip()
        if not word:
            return queryset, False
        if word.isascii() and word.isdecimal() and len(word) < 19:
            return queryset.filter(pk=int(word)), False
        try:
            return queryset.filter(workflow_id=uuid.UUID(word)), False
        except ValueError:
            pass
        if len(word) == _HASH_CHARS and word.isalnum():
            return queryset.filter(spec_hash=word), False
        return queryset.filter(Q(task_path__startswith=word) | Q(lock_key=word) | Q(leased_by=word)), False

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        # The store keeps what somebody holds, and the page would say that it is gone.
        return super().has_delete_permission(request, obj) and (obj is None or obj.status != RunState.RUNNING)

    def save_model(self, request: Any, obj: TaskRun, form: Any, change: bool) -> None:
        """Save nothing: the form has no fields, and a run that has gone on since it was read would be set back."""

    def get_readonly_fields(self, request: Any, obj: Any = None) -> list[str]:
        large = {"spec_json", "return_json", "errors_json", "metadata_json"}
        plain = [field.name for field in TaskRun._meta.fields if field.name not in large]
        return [*plain, "spec", "errors", "returned", "metadata", "same_content"]

    def get_fields(self, request: Any, obj: Any = None) -> list[str]:
        return self.get_readonly_fields(request, obj)

    def get_actions(self, request: Any, action_location: Any = None) -> dict[str, Any]:
        # Django 6.1 says which page it asks for. Its own action collects and shows every row first, and cannot say what somebody holds.
        where = {} if action_location is None else {"action_location": action_location}
        return {name: action for name, action in super().get_actions(request, **where).items() if name != "delete_selected"}

    def has_replay_permission(self, request: Any) -> bool:
        return bool(request.user.has_perm("reproq_django.can_replay_taskrun"))

    @admin.display(description="status", ordering="status")
    def badge(self, run: TaskRun) -> str:
        return format_html('<b style="color:{}">{}</b>', _COLOURS.get(run.status, "inherit"), run.status)

    @admin.display(description="lease")
    def lease(self, run: TaskRun) -> str:
        if run.status != RunState.RUNNING or run.leased_until is None:
            return "none"
        return "active" if run.leased_until >= timezone.now() else "stale"

    @admin.display(description="concurrency")
    def concurrency(self, run: TaskRun) -> str:
        return f"{run.concurrency_key} ({run.concurrency_limit})" if run.concurrency_key else ""

    @admin.display(description="duration")
    def duration(self, run: TaskRun) -> str:
        if run.started_at is None:
            return ""
        seconds = ((run.finished_at or timezone.now()) - (run.last_attempted_at or run.started_at)).total_seconds()
        return f"{max(0.0, seconds):.1f} s"

    @admin.display(description="attempts")
    def attempts_of(self, run: TaskRun) -> str:
        return f"{run.attempts}/{run.max_attempts}"

    @admin.display(description="spec")
    def spec(self, run: TaskRun) -> str:
        return _pretty(run.spec_json)

    @admin.display(description="errors")
    def errors(self, run: TaskRun) -> str:
        return _pretty(run.errors_json)

    @admin.display(description="result")
    def returned(self, run: TaskRun) -> str:
        return _pretty(run.return_json)

    @admin.display(description="metadata")
    def metadata(self, run: TaskRun) -> str:
        return _pretty(run.metadata_json)

    @admin.display(description="other runs")
    def same_content(self, run: TaskRun) -> str:
        return format_html('<a href="../../?q={}">those with the same content</a>', run.spec_hash.strip())

    @admin.action(description="Replay: enqueue the same anew", permissions=["replay"])
    def replay(self, request: Any, queryset: QuerySet) -> None:
        self._tell(request, operations.replay(queryset.db, _ids(queryset)), "enqueued")

    @admin.action(description="Retry failed", permissions=["change"])
    def retry_failed(self, request: Any, queryset: QuerySet) -> None:
        self._tell(request, operations.retry(queryset.db, _ids(queryset.filter(status=RunState.FAILED))), "retried")

    @admin.action(description="Discard failed", permissions=["change"])
    def discard_failed(self, request: Any, queryset: QuerySet) -> None:
        self._tell(request, Counter(discarded=operations.discard(queryset.db, _ids(queryset))), "discarded")

    @admin.action(description="Cancel", permissions=["change"])
    def cancel(self, request: Any, queryset: QuerySet) -> None:
        self._tell(request, operations.cancel(queryset.db, _ids(queryset)), "cancelled", "requested")

    @admin.action(description="Delete successful", permissions=["delete"])
    def delete_successful(self, request: Any, queryset: QuerySet) -> None:
        self._tell(request, Counter(deleted=operations.delete_ended(queryset.db, _ids(queryset), (RunState.SUCCESSFUL,))), "deleted")

    def _tell(self, request: Any, outcomes: Counter[str], *wanted: str) -> None:
        words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "nothing to do"
        is_all = set(+outcomes) <= set(wanted)
        self.message_user(request, f"Runs: {words}.", messages.SUCCESS if is_all else messages.WARNING)


def _ids(queryset: QuerySet) -> list[int]:
    return list(queryset.order_by("pk").values_list("pk", flat=True))


def _pretty(value: Any) -> str:
    if value is None:
        return ""
    return format_html('<pre style="white-space:pre-wrap">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True))
