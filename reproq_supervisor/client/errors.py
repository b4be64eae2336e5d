"""What can go wrong for a caller, split by what the caller does about it.

A database that cannot be asked is `reproq_supervisor.store.errors.StoreUnavailable` (try again later), one that refuses is `StoreError`.
"""

from collections.abc import Sequence
from typing import Any

from reproq_supervisor.core.errors import ReproqError


class ClientError(ReproqError):
    """The root of the errors of this room."""


class UnknownRunError(ClientError, LookupError):
    """There is no run with this id: it never was, or it has been pruned."""

    def __init__(self, result_id: int) -> None:
        super().__init__(f"task run {result_id}: expected a run with this id, found none; it may have been pruned")
        self.result_id = result_id

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.result_id,)


class WaitTimeoutError(ClientError, TimeoutError):
    """A run did not end in time; it goes on."""

    def __init__(self, result_ids: Sequence[int], timeout_s: float, found: str) -> None:
        of = f"task run {result_ids[0]}" if len(result_ids) == 1 else f"{len(result_ids)} task runs, {result_ids[0]} the first"
        super().__init__(f"{of}: expected the end within {timeout_s:g} s, found {found}")
        self.result_ids = tuple(result_ids)
        self.timeout_s = timeout_s
        self.found = found

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.result_ids, self.timeout_s, self.found)


class NotEndedError(ClientError):
    """The value of a run was asked for that has not ended."""


class TaskFailedError(ClientError):
    """The value of a run was asked for that failed.

    Attributes:
      error: the last entry of its `errors_json`, {} if it has none.
    """

    def __init__(self, result_id: int, task_path: str, error: dict[str, Any]) -> None:
        kind = error.get("exception_class") or error.get("kind") or "no error recorded"
        super().__init__(f"task run {result_id} ({task_path}): expected success, got {kind}: {error.get('message', '')}")
        self.result_id = result_id
        self.task_path = task_path
        self.error = error

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.result_id, self.task_path, self.error)


class TaskCancelledError(TaskFailedError):
    """The value of a run was asked for that was cancelled."""
