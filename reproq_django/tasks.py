"""A task to try a queue with."""

from reproq_django.framework import DEFAULT_TASK_QUEUE_NAME, task, task_backends

# A project need not have a backend `default`, nor a queue of that name: a task that its backend refuses cannot even be defined.
_BACKEND = task_backends[next(iter(task_backends.settings))]


@task(backend=_BACKEND.alias, queue_name=min(_BACKEND.queues or {DEFAULT_TASK_QUEUE_NAME}))
def debug_noop_task(number: int = 0) -> int:
    """Return what it was given."""
    return number
