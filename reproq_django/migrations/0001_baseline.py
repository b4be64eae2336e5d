"""The tables of the contract, under the name by which older packages entered them.

The models' columns are Django's side; on PostgreSQL the last operation makes the tables, as `reproq-supervisor migrate` does.
"""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from reproq_django.schema import CreateTable, bring_schema, keep_tables


class Migration(migrations.Migration):
    """The steps of the store need commits of their own, and never keep producers waiting."""

    initial = True
    atomic = False
    dependencies: list[tuple[str, str]] = []
    replaces = [
        ("reproq_django", "0001_initial"),
        ("reproq_django", "0002_taskrun_indexes"),
        ("reproq_django", "0003_rename_idx_task_runs_status_task_runs_status_26197d_idx_and_more"),
    ]

    operations = [
        CreateTable(
            name="PeriodicTask",
            fields=[
                ("name", models.TextField(primary_key=True, serialize=False)),
                ("cron_expr", models.TextField()),
                ("task_path", models.TextField()),
                ("payload_json", models.JSONField(blank=True, default=dict)),
                ("queue_name", models.TextField(default="default")),
                ("priority", models.IntegerField(default=0)),
                ("max_attempts", models.IntegerField(default=3)),
                ("concurrency_key", models.TextField(blank=True, null=True)),
                ("concurrency_limit", models.IntegerField(default=0)),
                ("last_run_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("next_run_at", models.DateTimeField(blank=True, default=django.utils.timezone.now)),
                ("enabled", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("timezone", models.TextField(default="UTC")),
                ("jitter_s", models.FloatField(default=0)),
                ("overlap", models.TextField(choices=[("allow", "start another one"), ("skip", "skip this time")], default="allow")),
                (
                    "missed",
                    models.TextField(
                        choices=[("one", "once, for the last of them"), ("all", "each of them"), ("none", "nothing")], default="one"
                    ),
                ),
                ("timeout_seconds", models.IntegerField(default=900)),
                ("disabled_reason", models.TextField(blank=True, null=True)),
                ("declared", models.JSONField(editable=False, null=True)),
                ("declared_by", models.TextField(editable=False, null=True)),
            ],
            options={
                "verbose_name": "periodic task",
                "db_table": "periodic_tasks",
            },
        ),
        CreateTable(
            name="QueueControl",
            fields=[
                ("queue_name", models.TextField(primary_key=True, serialize=False)),
                ("paused", models.BooleanField(default=False)),
                ("paused_at", models.DateTimeField(blank=True, null=True)),
                ("reason", models.TextField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "verbose_name": "queue control",
                "db_table": "reproq_queue_controls",
            },
        ),
        CreateTable(
            name="RateLimit",
            fields=[
                ("key", models.TextField(primary_key=True, serialize=False)),
                ("tokens_per_second", models.FloatField()),
                ("burst_size", models.IntegerField(default=1)),
                ("current_tokens", models.FloatField(default=0)),
                ("last_refilled_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "verbose_name": "rate limit",
                "db_table": "rate_limits",
            },
        ),
        CreateTable(
            name="Worker",
            fields=[
                ("worker_id", models.TextField(primary_key=True, serialize=False)),
                ("hostname", models.TextField(null=True)),
                ("concurrency", models.IntegerField(null=True)),
                ("queues", models.JSONField(default=list)),
                ("started_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("last_seen_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("version", models.TextField(null=True)),
            ],
            options={
                "db_table": "reproq_workers",
            },
        ),
        CreateTable(
            name="WorkflowRun",
            fields=[
                ("workflow_id", models.UUIDField(primary_key=True, serialize=False)),
                ("expected_count", models.IntegerField()),
                ("success_count", models.IntegerField(default=0)),
                ("failure_count", models.IntegerField(default=0)),
                ("callback_result_id", models.BigIntegerField(blank=True, null=True)),
                ("status", models.TextField(default="RUNNING")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "verbose_name": "workflow",
                "db_table": "workflow_runs",
            },
        ),
        CreateTable(
            name="TaskRun",
            fields=[
                ("result_id", models.BigAutoField(primary_key=True, serialize=False)),
                ("backend_alias", models.TextField(default="default")),
                ("queue_name", models.TextField(default="default")),
                ("priority", models.IntegerField(default=0)),
                ("run_after", models.DateTimeField(blank=True, null=True)),
                ("spec_json", models.JSONField()),
                ("spec_hash", models.CharField(max_length=64)),
                ("task_path", models.TextField(null=True)),
                (
                    "status",
                    models.TextField(
                        choices=[
                            ("READY", "ready"),
                            ("WAITING", "waiting"),
                            ("RUNNING", "running"),
                            ("SUCCESSFUL", "successful"),
                            ("FAILED", "failed"),
                            ("CANCELLED", "cancelled"),
                        ],
                        default="READY",
                    ),
                ),
                ("enqueued_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("last_attempted_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("attempts", models.IntegerField(default=0)),
                ("max_attempts", models.IntegerField(default=3)),
                ("timeout_seconds", models.IntegerField(default=900)),
                ("lock_key", models.TextField(blank=True, null=True)),
                ("concurrency_key", models.TextField(blank=True, null=True)),
                ("concurrency_limit", models.IntegerField(default=0)),
                ("worker_ids", models.JSONField(default=list)),
                ("return_json", models.JSONField(blank=True, null=True)),
                ("errors_json", models.JSONField(default=list)),
                ("metadata_json", models.JSONField(default=dict)),
                ("last_error", models.TextField(blank=True, null=True)),
                ("failed_at", models.DateTimeField(blank=True, null=True)),
                ("leased_until", models.DateTimeField(blank=True, null=True)),
                ("leased_by", models.TextField(blank=True, null=True)),
                ("logs_uri", models.TextField(blank=True, null=True)),
                ("artifacts_uri", models.TextField(blank=True, null=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("workflow_id", models.UUIDField(blank=True, null=True)),
                ("wait_count", models.IntegerField(default=0)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("updated_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("cancel_requested", models.BooleanField(default=False)),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="children",
                        to="reproq_django.taskrun",
                    ),
                ),
            ],
            options={
                "verbose_name": "task run",
                "db_table": "task_runs",
                "permissions": [("can_replay_taskrun", "Can replay task runs")],
            },
        ),
        migrations.RunPython(bring_schema, keep_tables),
    ]
