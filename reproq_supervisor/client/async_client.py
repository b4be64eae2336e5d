"""The client for coroutines: the same questions as `Client`, awaited."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from reproq_supervisor.client import questions
from reproq_supervisor.client.arguments import check_ids
from reproq_supervisor.client.database import find_database
from reproq_supervisor.client.options import seconds
from reproq_supervisor.client.result import TaskResult
from reproq_supervisor.client.waiting import ended_or_late, in_order, pauses
from reproq_supervisor.client.workflows import Workflow
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.asking import Question, ask_async
from reproq_supervisor.store.commands import CancelOutcome, Stats
from reproq_supervisor.store.lending import AsyncConnections
from reproq_supervisor.store.triage import Retried

if TYPE_CHECKING:
    from reproq_supervisor.store.connect import AsyncConnection

T = TypeVar("T")


class AsyncClient:
    """As `Client`, whose methods say what each does; *connection* is the caller's own asynchronous psycopg connection.

    One may serve several event loops, one after the other or in several threads.
    """

    def __init__(self, dsn: str | None = None) -> None:
        self._connections = AsyncConnections(find_database(dsn), "reproq client")

    async def close(self) -> None:
        """Close the connections that are idle on this event loop."""
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def enqueue(self, run: NewRun, *, connection: "AsyncConnection | None" = None) -> RunId:
        """As `Client.enqueue`."""
        return (await self.enqueue_many([run], connection=connection))[0]

    async def enqueue_many(self, runs: Iterable[NewRun], *, connection: "AsyncConnection | None" = None) -> list[RunId]:
        """As `Client.enqueue_many`."""
        return await self._change(questions.enqueuing(list(runs)), connection)

    async def begin(self, workflow: Workflow[T], *, connection: "AsyncConnection | None" = None) -> T:
        """As `Client.begin`."""
        return await self._change(workflow.beginning(), connection)

    async def result(self, run: int) -> TaskResult:
        """As `Client.result`."""
        return in_order(await self.results([run]), check_ids([run]))[0]

    async def results(self, runs: Iterable[int]) -> dict[RunId, TaskResult]:
        """As `Client.results`."""
        return await self._read(questions.reading(check_ids(runs)))

    async def wait(self, run: int, timeout: float | timedelta | None = None) -> TaskResult:
        """As `Client.wait`."""
        return (await self.wait_all([run], timeout))[0]

    async def wait_all(self, runs: Iterable[int], timeout: float | timedelta | None = None) -> list[TaskResult]:
        """As `Client.wait_all`."""
        wanted, timeout_s = check_ids(runs), seconds(timeout)
        open_runs = await self._read(questions.watching(wanted))
        for pause_s in pauses(timeout_s):
            if not open_runs:
                break
            await asyncio.sleep(pause_s)
            open_runs = await self._read(questions.watching(sorted(open_runs)))
        return ended_or_late(in_order(await self.results(wanted), wanted), timeout_s)

    async def cancel(self, run: int, *, connection: "AsyncConnection | None" = None) -> CancelOutcome:
        """As `Client.cancel`."""
        question = questions.cancelling([run], leaves_word=connection is not None)
        return (await self._change(question, connection))[RunId(run)]

    async def retry(self, run: int, *, connection: "AsyncConnection | None" = None) -> Retried:
        """As `Client.retry`."""
        return (await self._change(questions.retrying([run]), connection))[RunId(run)]

    async def stats(self) -> Stats:
        """As `Client.stats`."""
        return await self._read(questions.counting())

    async def _change(self, question: Question[T], connection: "AsyncConnection | None") -> T:
        if connection is not None:
            return await ask_async(connection, question)
        async with self._connections.one() as mine:
            return await ask_async(mine, question)

    async def _read(self, question: Question[T]) -> T:
        async with self._connections.one() as connection:
            return await ask_async(connection, question, atomic=False)
