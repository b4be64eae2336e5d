"""What a task of Django is given as its context: the framework's, with everything that the executor knows of the run."""

from typing import Any

from reproq_django.framework import TaskContext as FrameworkContext
from reproq_supervisor.executor.context import TaskContext as RunContext


class TaskContext(FrameworkContext):
    """First argument of a task with `takes_context=True`.

    Beside `task_result` and `attempt` it has what every task's context has (`reproq_supervisor.TaskContext`): `result_id`, `task_path`,
    `queue_name`, `priority`, `metadata`, `save_metadata`, `progress`, `remaining`, `cancel_requested`, `completing` and the others.

    Attributes:
      task_result: of the run as it begins; `refresh` reads the rest. None where the task is a plain function.
      db_alias: the database that its queue is in.
    """

    db_alias: str
    run: RunContext

    @classmethod
    def of(cls, run: RunContext, task_result: Any, db_alias: str) -> "TaskContext":
        """Return the context of *run*."""
        context = cls(task_result=task_result)
        object.__setattr__(context, "run", run)
        object.__setattr__(context, "db_alias", db_alias)
        return context

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return self.run.attempt

    @property
    def metadata(self) -> dict[str, Any]:
        """What is noted down about the run; change it, then `save_metadata`."""
        return self.run.metadata

    def save_metadata(self) -> None:
        """Have it written to the record, if it has changed."""
        self.run.save_metadata()

    async def asave_metadata(self) -> None:
        """As `save_metadata`, for coroutines."""
        await self.run.asave_metadata()

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "run"), name)
