"""A task to try a queue with."""

from reproq_django.backend import ReproqBackend
from reproq_django.framework import DEFAULT_TASK_QUEUE_NAME, task, task_backends

# A project need not have a backend `default`, nor a queue of that name: a task that its backend refuses cannot even be defined.
# The first of ours, for it is our queue that is tried; of whatever there is where a project's tests have none.
_BACKENDS = [task_backends[name] for name in task_backends.settings]
_BACKEND = next((each for each in _BACKENDS if isinstance(each, ReproqBackend)), _BACKENDS[0])


@task(backend=_BACKEND.alias, queue_name=min(_BACKEND.queues or {DEFAULT_TASK_QUEUE_NAME}))
def debug_noop_task(number: int = 0) -> int:
    """Return what it was given."""
    return number
