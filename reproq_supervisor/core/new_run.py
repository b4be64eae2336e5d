"""A task run that is to be enqueued."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to enqueue. Arguments must be JSON; times count from the database's clock.

    Attributes:
      delay_s: seconds until it is due; `run_after` (aware) says the same as a point in time and wins.
      expires_in_s: seconds after which it is no longer worth running.
      dedupe: True if an active run with the same spec shall be returned instead of a new one.
      backend_alias: which of an application's task backends enqueued it.
      code_ref, pip_lock_hash: what the code was when it was enqueued; part of the spec.
    """

    task_path: str
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    queue_name: str = "default"
    priority: int = 0
    run_after: datetime | None = None
    delay_s: float | None = None
    expires_in_s: float | None = None
    max_attempts: int = 3
    timeout_seconds: int = 900
    takes_context: bool = False
    lock_key: str | None = None
    concurrency_key: str | None = None
    concurrency_limit: int = 0
    dedupe: bool = False
    backend_alias: str = "default"
    code_ref: str | None = None
    pip_lock_hash: str | None = None

    def payload(self) -> dict[str, Any]:
        """Return the contract's payload: what `spec_json` holds."""
        return {
            "v": 1,
            "task_path": self.task_path,
            "args": list(self.args),
            "kwargs": self.kwargs,
            "takes_context": self.takes_context,
            "queue_name": self.queue_name,
            "priority": self.priority,
            "lock_key": self.lock_key,
            "concurrency_key": self.concurrency_key,
            "concurrency_limit": self.concurrency_limit,
            "run_after": self.run_after.isoformat() if self.run_after else None,
            "exec": {"timeout_seconds": self.timeout_seconds, "max_attempts": self.max_attempts},
            "provenance": {"code_ref": self.code_ref, "pip_lock_hash": self.pip_lock_hash},
        }

    def spec(self) -> str:
        """Return the payload as canonical JSON, the text that `spec_hash` is taken of.

        Raises:
          ValueError: an argument is no JSON (NaN included).
          TypeError: an argument is no JSON.
        """
        return json.dumps(self.payload(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
