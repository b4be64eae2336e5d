"""Task paths: where a function or a task is imported from, and what is found there."""

from typing import Any

from django.utils.module_loading import import_string

from reproq_django.framework import Task, TaskResultMismatch


def path_of(task: Any) -> str:
    """Return the path of a task, or of a function that will be one."""
    func = getattr(task, "func", task)
    return f"{func.__module__}.{func.__qualname__}"


def task_at(path: str) -> Task:
    """Return the task at *path*.

    Raises:
      TaskResultMismatch: there is none (any more).
    """
    try:
        found = import_string(path)
    except ImportError as error:
        raise TaskResultMismatch(f"{path}: expected a task, but it cannot be imported: {error}") from error
    if not isinstance(found, Task):
        raise TaskResultMismatch(f"{path}: expected a task (a function with @task), got {type(found).__name__}")
    return found
