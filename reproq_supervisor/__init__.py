"""The background side of a Python application, on PostgreSQL alone."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproq_supervisor.executor.api import Fail, Retry, SoftTimeout
    from reproq_supervisor.executor.context import TaskContext

__version__ = "0.1.0"
__all__ = ["Fail", "Retry", "SoftTimeout", "TaskContext", "__version__"]


def __getattr__(name: str) -> Any:
    """Give task code its names from here, without loading anything for processes that only want the package."""
    if name in __all__:
        home = "context" if name == "TaskContext" else "api"
        return getattr(importlib.import_module(f"reproq_supervisor.executor.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
