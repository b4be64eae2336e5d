"""What applications import: enqueue tasks, await their results, mark functions as tasks; within a task, ask about its run.

Imported by user code in any process, executors included: so it loads no database driver before the first question. May import everything
below, the commands included: they know how the database is found.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproq_supervisor.client.arguments import ArgumentsError
    from reproq_supervisor.client.async_client import AsyncClient
    from reproq_supervisor.client.client import Client
    from reproq_supervisor.client.default import use
    from reproq_supervisor.client.errors import (
        ClientError,
        NotEndedError,
        TaskCancelledError,
        TaskFailedError,
        UnknownRunError,
        WaitTimeoutError,
    )
    from reproq_supervisor.client.result import TaskResult
    from reproq_supervisor.client.tasks import Task, task
    from reproq_supervisor.client.workflows import Chord, chain, chord, group
    from reproq_supervisor.core.new_run import NewRun
    from reproq_supervisor.core.progress import Progress
    from reproq_supervisor.executor.context import ContextError, TaskContext, current

_HOMES = {
    "async_client": ("AsyncClient",),
    "arguments": ("ArgumentsError",),
    "client": ("Client",),
    "default": ("use",),
    "tasks": ("Task", "task"),
    "errors": ("ClientError", "NotEndedError", "TaskCancelledError", "TaskFailedError", "UnknownRunError", "WaitTimeoutError"),
    "result": ("TaskResult",),
    "workflows": ("Chord", "chain", "chord", "group"),
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}
_HOME_OF["NewRun"] = "reproq_supervisor.core.new_run"
_HOME_OF["Progress"] = "reproq_supervisor.core.progress"
_HOME_OF |= dict.fromkeys(("ContextError", "TaskContext", "current"), "reproq_supervisor.executor.context")

__all__ = [
    "ArgumentsError",
    "AsyncClient",
    "Chord",
    "Client",
    "ClientError",
    "ContextError",
    "NewRun",
    "NotEndedError",
    "Progress",
    "Task",
    "TaskCancelledError",
    "TaskContext",
    "TaskFailedError",
    "TaskResult",
    "UnknownRunError",
    "WaitTimeoutError",
    "chain",
    "chord",
    "current",
    "group",
    "task",
    "use",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for, and no more: an executor that only runs tasks wants no driver."""
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
