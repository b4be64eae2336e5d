"""Its tasks."""

import asyncio
import os
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.utils import timezone, translation

from tests.support.django_site.apps import SiteConfig

_LEFT: list[Any] = []


def backend() -> list[int]:
    """Return this process, the server process of its connection, and that of the nursery's."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return [os.getpid(), cursor.fetchone()[0], SiteConfig.boot_backend]


async def coroutine_backend() -> list[int]:
    """As `backend`, for coroutines."""
    await asyncio.sleep(0)
    return await sync_to_async(backend)()


def leave_transaction_open() -> int:
    """Enter a block that nobody leaves."""
    block = transaction.atomic()
    block.__enter__()
    _LEFT.append(block)
    return backend()[1]


def leave_autocommit_off() -> int:
    """Begin a transaction by hand."""
    transaction.set_autocommit(False)
    return backend()[1]


def leave_begun() -> int:
    """Begin a transaction by SQL, which Django does not notice."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    return backend()[1]


def break_connection() -> None:
    """Have the server end the session, and fail by it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def state() -> dict[str, Any]:
    """Return what Django keeps in this thread, and spoil it."""
    found = {"language": translation.get_language(), "zone": str(timezone.get_current_timezone()), "queries": len(connection.queries_log)}
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    backend()
    return found


def in_block() -> bool:
    """Answer whether this task begins within somebody else's transaction."""
    return connection.in_atomic_block
