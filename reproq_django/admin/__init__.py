"""The admin pages: runs, schedules, queues, rate limits, workers and workflows. Nothing is changed by a GET."""

from reproq_django.admin.controls import QueueControlAdmin, RateLimitAdmin, WorkerAdmin, WorkflowRunAdmin
from reproq_django.admin.runs import TaskRunAdmin
from reproq_django.admin.schedules import PeriodicTaskAdmin

__all__ = ["PeriodicTaskAdmin", "QueueControlAdmin", "RateLimitAdmin", "TaskRunAdmin", "WorkerAdmin", "WorkflowRunAdmin"]
