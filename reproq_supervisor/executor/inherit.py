"""Let the threads that a task starts inherit its context, so that what they write is its own.

Newer Pythons can do that by themselves. Done in executors whose tasks share the process, and there before any task.
"""

import concurrent.futures
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any


def inherit_contexts() -> None:
    """Make new threads, and what is given to thread pools, run in a copy of the context that they were asked for in."""
    start = threading.Thread.start

    def start_in_context(self: threading.Thread) -> None:
        self.run = partial(copy_context().run, self.run)  # type: ignore[method-assign]
        start(self)

    threading.Thread.start = start_in_context  # type: ignore[method-assign]

    # The threads of a pool outlive the task for which they were started.
    submit = concurrent.futures.ThreadPoolExecutor.submit

    def submit_in_context(self: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, copy_context().run, call, *args, **kwargs)

    concurrent.futures.ThreadPoolExecutor.submit = submit_in_context  # type: ignore[method-assign]
