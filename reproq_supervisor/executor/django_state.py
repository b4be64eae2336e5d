"""What Django keeps in a process and its threads, put right before forks and around tasks, as Django itself does around requests.

    nursery    imports, django.setup() ──► close_everything            no connection crosses a fork
    executor   begin_task ──► the task ──► end_task                    in the thread that runs it

A connection is kept for the next task as `CONN_MAX_AGE` says, but never one with a transaction that a task left open: the next task would
work in it. What Django keeps for coroutines is in a thread of its own, asgiref's; there the same is done between two pieces of work.

Nothing here imports Django: an application that has not done so has nothing to put right.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any


def close_everything() -> None:
    """Close every connection of this thread, with its pool, which has threads, and what caches have open."""
    for _, connection in _connections():
        connection.close()
        close_pool = getattr(connection, "close_pool", None)
        if close_pool is not None:
            close_pool()
    _close_caches()


def begin_task() -> None:
    """A task begins in this thread: forget the queries of others, and close what is too old or broken."""
    if _has_settings():
        _begin()
        _in_thread_of_coroutines(_begin)


def end_task() -> None:
    """The task of this thread has ended: undo what it left open, and let go of what may not be kept."""
    if _has_settings():
        _told(_end)
        _in_thread_of_coroutines(_end)


def _begin() -> None:
    db: Any = sys.modules["django.db"]
    db.reset_queries()
    _look_after_connections()


def _end() -> None:
    _look_after_connections()
    _close_caches()
    # A language or a time zone that a task switched to is not the next one's.
    for name in ("django.utils.translation", "django.utils.timezone"):
        module: Any = sys.modules.get(name)
        if module is not None:
            module.deactivate()


def _told(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:  # boundary: engines of databases and caches are the application's, and its result is worth more
        sys.stderr.write(f"reproq: closing Django's connections failed with {type(error).__name__}: {error}\n")


def _look_after_connections() -> None:
    for alias, connection in _connections():
        if not connection.in_atomic_block:
            if _has_hidden_transaction(connection):
                connection.close()
            connection.close_if_unusable_or_obsolete()
            continue
        try:
            connection.close()
        finally:
            # Its wrapper still believes in the block that nobody will leave; without one Django makes another.
            db: Any = sys.modules["django.db"]
            del db.connections[alias]


def _has_hidden_transaction(connection: Any) -> bool:
    """Answer whether SQL has begun a transaction that Django knows nothing of: what the next tasks write would be in it, and be lost."""
    raw = connection.connection
    if raw is None:
        return False
    if connection.vendor == "postgresql":
        return bool(raw.info.transaction_status)  # 0 is idle, in both drivers
    return bool(getattr(raw, "in_transaction", False))


def _has_settings() -> bool:
    conf: Any = sys.modules.get("django.conf")
    return conf is not None and "django.db" in sys.modules and bool(conf.settings.configured)


def _connections() -> Iterator[tuple[str, Any]]:
    if _has_settings():
        db: Any = sys.modules["django.db"]
        yield from [(connection.alias, connection) for connection in db.connections.all(initialized_only=True)]


def _close_caches() -> None:
    cache: Any = sys.modules.get("django.core.cache")
    if cache is not None and _has_settings():
        cache.caches.close_all()


def _in_thread_of_coroutines(call: Callable[[], None]) -> None:
    """Have *call* done between two pieces of work of asgiref's thread, if it was ever needed; nobody waits for it."""
    asgiref: Any = sys.modules.get("asgiref.sync")
    if asgiref is None:
        return
    executor = asgiref.SyncToAsync.single_thread_executor
    if getattr(executor, "_threads", None):
        executor.submit(_told, call)
