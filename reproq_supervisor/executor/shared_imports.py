"""What executors need beyond the application, imported in the nursery so that they share it, and only where they will need it.

An event loop brings 5 MiB: logging, TLS, subprocesses, thread pools. A pool of plain tasks needs none of it.
"""

import gc
import importlib
import inspect
import sys
import types
from collections.abc import Sequence

_OURS = __name__.partition(".")[0]


def import_shared(mode: str, allowed: Sequence[str]) -> None:
    """Import what executors of *mode* need. Call it when the application is imported, and before anything is frozen.

    Where no task module is imported yet, nobody knows. A coroutine task that is not seen here runs, too: its executor imports the loop
    for itself, in 25 ms and 6 MiB.
    """
    if mode != "process":
        importlib.import_module("reproq_supervisor.executor.several")
    elif defines_coroutines(allowed) or not are_imported(allowed):
        importlib.import_module("asyncio")


def are_imported(allowed: Sequence[str]) -> bool:
    """Answer whether any module below *allowed* is imported by now."""
    prefixes = tuple(allowed)
    return any(_may_hold_tasks(name, prefixes) for name in sys.modules)


def defines_coroutines(allowed: Sequence[str]) -> bool:
    """Answer whether any module below *allowed* that is imported by now defines a coroutine function.

    The collector knows all functions, those inside of decorated tasks and of classes, too, and to ask it runs no code of the application.
    """
    prefixes = tuple(allowed)
    return any(
        type(each) is types.FunctionType
        and bool(each.__code__.co_flags & inspect.CO_COROUTINE)
        and _may_hold_tasks(each.__module__, prefixes)
        for each in gc.get_objects()
    )


def _may_hold_tasks(module: object, prefixes: tuple[str, ...]) -> bool:
    if not isinstance(module, str):
        return False
    if "*" in prefixes:
        return module.partition(".")[0] not in sys.stdlib_module_names | {_OURS}
    # A prefix may also name one task.
    return f"{module}.".startswith(prefixes) or any(prefix.startswith(f"{module}.") for prefix in prefixes)
