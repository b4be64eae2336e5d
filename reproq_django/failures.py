"""The errors of a run as the framework tells them: a class that can be imported, and a traceback.

An attempt that no exception of the task ended has a class of its own here, one for each kind.
"""

import builtins
from collections.abc import Mapping
from typing import Any

from reproq_django.framework import TaskError


class AttemptError(Exception):
    """An attempt that ended otherwise than by an exception whose class is known."""


class TimedOut(AttemptError):
    """It ran into its time limit."""


class Cancelled(AttemptError):
    """Somebody asked for it."""


class WorkerCrashed(AttemptError):
    """The process that ran it died."""


class LeaseExpired(AttemptError):
    """Nothing was heard of who ran it for too long."""


class Expired(AttemptError):
    """It was not worth running any more before its turn came."""


class ParentFailed(AttemptError):
    """What it waited for failed."""


class BadResult(AttemptError):
    """What it returned cannot be stored."""


class Refused(AttemptError):
    """It may not, or cannot, be run: the path or the spec is not right."""


class InfrastructureFailed(AttemptError):
    """Something around it failed."""


_CLASS_OF_KIND: dict[str, type[AttemptError]] = {
    "infra_error": InfrastructureFailed,
    "cancelled": Cancelled,
    "security_violation": Refused,
    "invalid_spec": Refused,
    "lease_expiry": LeaseExpired,
    "reclaim": LeaseExpired,
    "workflow_failed": ParentFailed,
    "parent_failed": ParentFailed,
    "timeout": TimedOut,
    "worker_crashed": WorkerCrashed,
    "expired": Expired,
    "bad_result": BadResult,
}


def task_errors(entries: object) -> list[TaskError]:
    """Return the entries of `errors_json` in the framework's form, in order."""
    return [_task_error(entry) for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _task_error(entry: Mapping[str, Any]) -> TaskError:
    text = entry.get("traceback") or entry.get("message") or entry.get("kind") or ""
    return TaskError(exception_class_path=_path_of(entry), traceback=str(text))


def _path_of(entry: Mapping[str, Any]) -> str:
    """Return where the class can be imported from; older entries have only its bare name, which tells it for those of Python itself."""
    path, name = entry.get("exception_class_path"), entry.get("exception_class")
    if isinstance(path, str) and "." in path and "<" not in path:
        return path
    if isinstance(name, str) and isinstance(getattr(builtins, name, None), type):
        return f"builtins.{name}"
    found = _CLASS_OF_KIND.get(str(entry.get("kind")), AttemptError)
    return f"{found.__module__}.{found.__qualname__}"
