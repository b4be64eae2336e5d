"""The end of a run within the transaction of its own writes (`context.completing()`): one commit, or nothing.

    open ──► BEGIN, mark ──► the task's statements ──► complete ──► COMMIT
                                   │                       └─ lost, refused ──► rolled back with the connection
                                   └─ the block fails ──► rolled back

When it fails: killed anywhere before the commit, the server rolls back, and the run ends as by any crash. After the commit it has ended:
whatever the shard says of it meets the fence, and is answered with what the record shows. So what a connection leaves unknown that is lost
in the middle of the commit is known there, too.
"""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg

from reproq_supervisor.store.connect import AsyncConnection, Connection, open_async, open_one
from reproq_supervisor.store.errors import StoreError, StoreUnavailable, translated
from reproq_supervisor.store.statements import load

_APPLICATION_NAME = "reproq task"
_BUSY_TRIES = 25  # of 0.2 s each, which the server waits
_BUSY_PAUSE_S = 0.02


class CompletionLost(StoreError):
    """The run is no longer this attempt's: another one has begun, or it was ended. Nothing of the block has happened."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What proves that an attempt may end its run."""

    leased_by: str
    result_id: int
    lease_no: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What the record shall say.

    Attributes:
      value: the result, as JSON text; metadata: the same, None leaves it.
    """

    value: bytes
    started_s_ago: float
    metadata: bytes | None


class Completing:
    """The transaction of one block, on a connection of its own."""

    def __init__(self, dsn: str, lease: Lease) -> None:
        self.connection = open_one(dsn, application_name=_APPLICATION_NAME)
        self._lease = lease
        self._transaction = self.connection.transaction()
        with ExitStack() as if_it_fails, translated():
            if_it_fails.callback(self.close)
            self.connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._transaction.__enter__()
            self.connection.execute(load("task_lane")["begin_completion"], {"lease_no": str(lease.lease_no)})
            if_it_fails.pop_all()

    def finish(self, ended: Ended) -> None:
        """End the run and commit.

        Raises:
          CompletionLost, StoreError: nothing has happened.
          StoreUnavailable: what has happened, the record knows.
        """
        with translated():
            for _ in range(_BUSY_TRIES):
                said = _said(self.connection.execute(load("task_lane")["complete"], _parameters(self._lease, ended)).fetchone())
                if said != "busy":
                    break
                time.sleep(_BUSY_PAUSE_S)
            _require_success(said, self._lease)
            self._transaction.__exit__(None, None, None)
        self.close()

    def close(self) -> None:
        """Give the connection up, and with it what has not been committed."""
        _drop(self.connection)


class AsyncCompleting:
    """The same for coroutines."""

    def __init__(self, connection: AsyncConnection, lease: Lease) -> None:
        self.connection = connection
        self._lease = lease
        self._transaction = connection.transaction()

    @classmethod
    async def begin(cls, dsn: str, lease: Lease) -> "AsyncCompleting":
        """Connect, and begin the transaction."""
        completing = cls(await open_async(dsn, application_name=_APPLICATION_NAME), lease)
        with ExitStack() as if_it_fails, translated():
            if_it_fails.callback(completing.close)
            await completing.connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
            await completing._transaction.__aenter__()
            await completing.connection.execute(load("task_lane")["begin_completion"], {"lease_no": str(lease.lease_no)})
            if_it_fails.pop_all()
        return completing

    async def finish(self, ended: Ended) -> None:
        """As `Completing.finish`."""
        with translated():
            for _ in range(_BUSY_TRIES):
                cursor = await self.connection.execute(load("task_lane")["complete"], _parameters(self._lease, ended))
                said = _said(await cursor.fetchone())
                if said != "busy":
                    break
                await asyncio.sleep(_BUSY_PAUSE_S)
            _require_success(said, self._lease)
            await self._transaction.__aexit__(None, None, None)
        self.close()

    def close(self) -> None:
        """As `Completing.close`; it needs no event loop, which may be gone."""
        _drop(self.connection)


def _drop(connection: Connection | AsyncConnection) -> None:
    # Not `close`, which says goodbye: an open transaction is rolled back by the end of its connection.
    connection.pgconn.finish()


def _parameters(lease: Lease, ended: Ended) -> dict[str, Any]:
    return {
        "leased_by": lease.leased_by,
        "id": lease.result_id,
        "lease_no": lease.lease_no,
        "value": ended.value.decode(),
        "started_ago": ended.started_s_ago,
        "metadata": None if ended.metadata is None else ended.metadata.decode(),
    }


def _said(row: Any) -> str:
    # Whatever row factory the task has set.
    value = next(iter(row.values())) if isinstance(row, dict) else row[0]
    return str(value)


def _require_success(said: str, lease: Lease) -> None:
    match said:
        case "SUCCESSFUL":
            return
        case "lost":
            raise CompletionLost(
                f"run {lease.result_id}: expected to hold its lease, but it is lost; the writes of this attempt are undone"
            )
        case "busy":
            raise StoreUnavailable(f"run {lease.result_id}: somebody keeps its record locked; the writes of this attempt are undone")
        case _:
            raise StoreError(f"run {lease.result_id}: its end was refused ({said}); the writes of this attempt are undone")
