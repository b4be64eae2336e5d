"""Models over the tables of the contract. Their schema has another owner (`schema.py`); columns that only the store writes are left out.

`TaskRun` is the record of a run: what was enqueued, and how it ended. Whoever changes one by these models counts as one of the store's
older clients: it may cancel, retry or edit what waits, and cannot touch what a shard holds (docs/architecture.md).
"""

from django.db import models
from django.utils import timezone


class RunState(models.TextChoices):
    """The contract's words for the state of a run."""

    READY = "READY", "ready"
    WAITING = "WAITING", "waiting"
    RUNNING = "RUNNING", "running"
    SUCCESSFUL = "SUCCESSFUL", "successful"
    FAILED = "FAILED", "failed"
    CANCELLED = "CANCELLED", "cancelled"


ACTIVE = (RunState.READY, RunState.WAITING, RunState.RUNNING)
ENDED = (RunState.SUCCESSFUL, RunState.FAILED, RunState.CANCELLED)


class TaskRun(models.Model):
    """One run of a task."""

    result_id = models.BigAutoField(primary_key=True)
    backend_alias = models.TextField(default="default")
    queue_name = models.TextField(default="default")
    priority = models.IntegerField(default=0)
    run_after = models.DateTimeField(null=True, blank=True)
    spec_json = models.JSONField()
    spec_hash = models.CharField(max_length=64)
    task_path = models.TextField(null=True)
    status = models.TextField(choices=RunState, default=RunState.READY)
    enqueued_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    last_attempted_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    attempts = models.IntegerField(default=0)
    max_attempts = models.IntegerField(default=3)
    timeout_seconds = models.IntegerField(default=900)
    lock_key = models.TextField(null=True, blank=True)
    concurrency_key = models.TextField(null=True, blank=True)
    concurrency_limit = models.IntegerField(default=0)
    worker_ids = models.JSONField(default=list)
    return_json = models.JSONField(null=True, blank=True)
    errors_json = models.JSONField(default=list)
    metadata_json = models.JSONField(default=dict)
    last_error = models.TextField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    leased_by = models.TextField(null=True, blank=True)
    logs_uri = models.TextField(null=True, blank=True)
    artifacts_uri = models.TextField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="children", db_index=False)
    workflow_id = models.UUIDField(null=True, blank=True)
    wait_count = models.IntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    cancel_requested = models.BooleanField(default=False)

    class Meta:
        db_table = "task_runs"
        verbose_name = "task run"
        permissions = [("can_replay_taskrun", "Can replay task runs")]

    def __str__(self) -> str:
        return f"{self.task_path} ({self.result_id})"


class Worker(models.Model):
    """A process that claims runs."""

    worker_id = models.TextField(primary_key=True)
    hostname = models.TextField(null=True)
    concurrency = models.IntegerField(null=True)
    queues = models.JSONField(default=list)
    started_at = models.DateTimeField(default=timezone.now)
    last_seen_at = models.DateTimeField(default=timezone.now)
    version = models.TextField(null=True)

    class Meta:
        db_table = "reproq_workers"

    def __str__(self) -> str:
        return str(self.worker_id)


class QueueControl(models.Model):
    """Whether a queue is paused."""

    queue_name = models.TextField(primary_key=True)
    paused = models.BooleanField(default=False)
    paused_at = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "reproq_queue_controls"
        verbose_name = "queue control"

    def __str__(self) -> str:
        return str(self.queue_name)


class Overlap(models.TextChoices):
    """What a schedule does whose last run has not ended."""

    ALLOW = "allow", "start another one"
    SKIP = "skip", "skip this time"


class Missed(models.TextChoices):
    """What a schedule does about the times that nobody fired."""

    ONE = "one", "once, for the last of them"
    ALL = "all", "each of them"
    NONE = "none", "nothing"


class PeriodicTask(models.Model):
    """A schedule: a task that the keeper enqueues again and again."""

    name = models.TextField(primary_key=True)
    cron_expr = models.TextField()
    task_path = models.TextField()
    payload_json = models.JSONField(default=dict, blank=True)
    queue_name = models.TextField(default="default")
    priority = models.IntegerField(default=0)
    max_attempts = models.IntegerField(default=3)
    concurrency_key = models.TextField(null=True, blank=True)
    concurrency_limit = models.IntegerField(default=0)
    last_run_at = models.DateTimeField(null=True, blank=True, editable=False)
    next_run_at = models.DateTimeField(blank=True, default=timezone.now)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)
    timezone = models.TextField(default="UTC")
    jitter_s = models.FloatField(default=0)
    overlap = models.TextField(choices=Overlap, default=Overlap.ALLOW)
    missed = models.TextField(choices=Missed, default=Missed.ONE)
    timeout_seconds = models.IntegerField(default=900)
    disabled_reason = models.TextField(null=True, blank=True)
    declared = models.JSONField(null=True, editable=False)
    declared_by = models.TextField(null=True, editable=False)

    class Meta:
        db_table = "periodic_tasks"
        verbose_name = "periodic task"

    def __str__(self) -> str:
        return str(self.name)


class RateLimit(models.Model):
    """A bucket of tokens, of which a claim spends one for each run."""

    key = models.TextField(primary_key=True)
    tokens_per_second = models.FloatField()
    burst_size = models.IntegerField(default=1)
    current_tokens = models.FloatField(default=0)
    last_refilled_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        db_table = "rate_limits"
        verbose_name = "rate limit"

    def __str__(self) -> str:
        return str(self.key)


class WorkflowRun(models.Model):
    """A chord: runs beside each other, and the callback after them."""

    workflow_id = models.UUIDField(primary_key=True)
    expected_count = models.IntegerField()
    success_count = models.IntegerField(default=0)
    failure_count = models.IntegerField(default=0)
    callback_result_id = models.BigIntegerField(null=True, blank=True)
    status = models.TextField(default="RUNNING")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "workflow_runs"
        verbose_name = "workflow"

    def __str__(self) -> str:
        return str(self.workflow_id)
