"""Pages of schedules."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.utils import timezone

from reproq_django import operations
from reproq_django.models import PeriodicTask
from reproq_supervisor.client.arguments import check_json
from reproq_supervisor.core.policy.cron import next_firing
from reproq_supervisor.settings.cron import CronError, parse_schedule

_LEAST = {"max_attempts": 1, "timeout_seconds": 1, "concurrency_limit": 0, "jitter_s": 0}


class ScheduleForm(forms.ModelForm):
    """A schedule as people write it; when it fires next is found out where they leave it open."""

    next_run_at = forms.SplitDateTimeField(
        required=False, widget=admin.widgets.AdminSplitDateTime(), help_text="Empty: when the line says so next."
    )

    class Meta:
        model = PeriodicTask
        fields = "__all__"
        widgets = {
            name: forms.TextInput(attrs={"size": 60})
            for name in ("name", "cron_expr", "task_path", "queue_name", "timezone", "concurrency_key", "disabled_reason")
        }

    def clean_payload_json(self) -> Any:
        payload = self.cleaned_data["payload_json"]
        try:
            check_json(payload, "payload")
            operations.arguments_of(payload)
        except (TypeError, ValueError) as error:
            raise forms.ValidationError(str(error)) from error
        return {} if payload is None else payload

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        for field, least in _LEAST.items():
            if cleaned.get(field) is not None and cleaned[field] < least:
                self.add_error(field, f"expected {least} or more")
        name = cleaned.get("name") or self.instance.name or ""
        try:
            cron, zone = parse_schedule(cleaned.get("cron_expr") or "", cleaned.get("timezone") or "UTC", name)
        except CronError as error:
            self.add_error("cron_expr", str(error))
            return cleaned
        moved = {"cron_expr", "timezone"} & set(self.changed_data) and "next_run_at" not in self.changed_data
        woken = cleaned.get("enabled") and "enabled" in self.changed_data
        if not cleaned.get("next_run_at") or moved or (woken and cleaned["next_run_at"] < timezone.now()):
            first = next_firing(cron, zone, timezone.now())
            if first is None:
                self.add_error("cron_expr", "expected a line that fires in the next fifty years")
            cleaned["next_run_at"] = first
        return cleaned


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(admin.ModelAdmin):
    """Schedules can be edited: what an operator changes stays, whatever the code says."""

    form = ScheduleForm
    list_display = ("name", "cron_expr", "timezone", "task_path", "queue_name", "enabled", "next_run_at", "last_run_at", "disabled_reason")
    list_filter = ("enabled",)
    search_fields = ("name", "task_path")
    readonly_fields = ("last_run_at", "created_at", "updated_at", "declared_by")
    ordering = ("name",)
    actions = ("run_now", "enable", "disable")

    def get_readonly_fields(self, request: Any, obj: Any = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "name") if obj else self.readonly_fields

    @admin.action(description="Run now", permissions=["change"])
    def run_now(self, request: Any, queryset: QuerySet) -> None:
        runs = []
        for schedule in queryset:
            try:
                runs.append(operations.run_schedule(queryset.db, schedule))
            except (TypeError, ValueError) as error:
                self.message_user(request, f"{schedule.name}: {error}", messages.ERROR)
        self.message_user(request, f"Enqueued: {', '.join(map(str, runs)) or 'nothing'}.")

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: Any, queryset: QuerySet) -> None:
        done = 0
        for schedule in queryset.filter(enabled=False):
            try:
                first = next_firing(*parse_schedule(schedule.cron_expr, schedule.timezone, schedule.name), timezone.now())
            except CronError as error:
                self.message_user(request, f"{schedule.name}: {error}", messages.ERROR)
                continue
            values = {"enabled": True, "disabled_reason": None, "updated_at": timezone.now()}
            done += queryset.filter(pk=schedule.pk).update(**values, **({"next_run_at": first} if first else {}))
        self.message_user(request, f"Enabled: {done}.")

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: Any, queryset: QuerySet) -> None:
        values = {"enabled": False, "disabled_reason": f"by {request.user.get_username()}", "updated_at": timezone.now()}
        self.message_user(request, f"Disabled: {queryset.filter(enabled=True).update(**values)}.")
