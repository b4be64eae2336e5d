"""A task run as its caller sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from reproq_supervisor.client.errors import NotEndedError, TaskCancelledError, TaskFailedError
from reproq_supervisor.core.progress import Progress, progress_in
from reproq_supervisor.core.runs import TERMINAL, RunId, RunStatus

if TYPE_CHECKING:
    from reproq_supervisor.store.commands import RunView


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One look at a run; it does not change.

    Attributes:
      due_at: when it is or was due to run.
      value: what it returned; None until it has succeeded.
      errors: one entry for each attempt that failed, the oldest first.
      metadata: what the task has written down about itself, progress included.
    """

    id: RunId
    task_path: str
    queue: str
    priority: int
    status: RunStatus
    attempts: int
    max_attempts: int
    enqueued_at: datetime
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    value: Any
    errors: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, Any]
    cancel_requested: bool
    logs_uri: str | None

    @classmethod
    def of(cls, view: "RunView") -> Self:
        """Return the run that the store read; plain SQL may have put anything into its JSON columns."""
        errors = view.errors_json if isinstance(view.errors_json, list) else []
        return cls(
            id=view.result_id,
            task_path=view.task_path,
            queue=view.queue_name,
            priority=view.priority,
            status=RunStatus(view.status),
            attempts=view.attempts,
            max_attempts=view.max_attempts,
            enqueued_at=view.enqueued_at,
            due_at=view.due_at,
            started_at=view.started_at,
            finished_at=view.finished_at,
            value=view.return_json,
            errors=tuple(error for error in errors if isinstance(error, dict)),
            metadata=view.metadata_json if isinstance(view.metadata_json, dict) else {},
            cancel_requested=view.cancel_requested,
            logs_uri=view.logs_uri,
        )

    @property
    def has_ended(self) -> bool:
        """Whether its status is final."""
        return self.status in TERMINAL

    @property
    def progress(self) -> Progress | None:
        """How far it has come, None if it does not say."""
        return progress_in(self.metadata)

    def get(self) -> Any:
        """Return what the task returned.

        Raises:
          TaskFailedError: it failed; TaskCancelledError: it was cancelled.
          NotEndedError: wait for it first.
        """
        match self.status:
            case RunStatus.SUCCESSFUL:
                return self.value
            case RunStatus.FAILED | RunStatus.CANCELLED:
                failure = TaskFailedError if self.status is RunStatus.FAILED else TaskCancelledError
                raise failure(self.id, self.task_path, dict(self.errors[-1]) if self.errors else {})
            case _:
                raise NotEndedError(f"task run {self.id} ({self.task_path}): expected its end, found {self.status}; use wait({self.id})")
