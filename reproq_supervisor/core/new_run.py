"""A task run that is to be enqueued."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
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
        places = (self.lock_key, self.concurrency_key, self.concurrency_limit, self.timeout_seconds, self.max_attempts)
        names = (self.task_path, self.takes_context, self.queue_name, self.priority, self.code_ref, self.pip_lock_hash)
        run_after = self.run_after.isoformat() if self.run_after else None  # as text: equal times may be written in two ways
        between, after = _frame(run_after, *names, *places)
        args = _json(list(self.args)) if self.args else "[]"
        return f'{{"args":{args}{between}{_json(self.kwargs)}{after}'


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


# Most runs differ by their arguments only: the rest of a spec took half of the time for all. Typed, for 1 == True.
@lru_cache(maxsize=256, typed=True)
def _frame(
    run_after: str | None,
    task_path: str,
    takes_context: bool,
    queue_name: str,
    priority: int,
    code_ref: str | None,
    pip_lock_hash: str | None,
    lock_key: str | None,
    concurrency_key: str | None,
    concurrency_limit: int,
    timeout_seconds: int,
    max_attempts: int,
) -> tuple[str, str]:
    """Return the spec of such runs between args and kwargs, and what follows."""
    run = NewRun(
        task_path,
        queue_name=queue_name,
        priority=priority,
        max_attempts=max_attempts,
        timeout_seconds=timeout_seconds,
        takes_context=takes_context,
        lock_key=lock_key,
        concurrency_key=concurrency_key,
        concurrency_limit=concurrency_limit,
        code_ref=code_ref,
        pip_lock_hash=pip_lock_hash,
    )
    rest = {name: value for name, value in run.payload().items() if name not in ("args", "kwargs")} | {"run_after": run_after}
    before = _json({name: value for name, value in rest.items() if name < "kwargs"})
    after = _json({name: value for name, value in rest.items() if name > "kwargs"})
    return f',{before[1:-1]},"kwargs":', f",{after[1:]}"
