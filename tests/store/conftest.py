"""Fixtures for tests of the store."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Keeper, Shard, ended
from tests.support.postgres import Database


@pytest.fixture
def shard_of(database: Database) -> Iterator[Callable[..., Shard]]:
    """Makes shards that are closed at the end."""
    with ExitStack() as stack:

        def make(worker_id: str = "worker-1", **options: Any) -> Shard:
            shard = Shard(database.dsn, worker_id, **options)
            stack.enter_context(ended(shard))
            return shard

        yield make


@pytest.fixture
def shard(shard_of: Callable[..., Shard]) -> Shard:
    return shard_of()


@pytest.fixture
def keeper(database: Database) -> Iterator[Keeper]:
    keeper = Keeper(database.dsn)
    with ended(keeper):
        yield keeper


@pytest.fixture
def put(database: Database) -> Callable[..., list[RunId]]:
    """Enqueues: `put(3)`, `put(queue_name="bulk", priority=5)`, `put(2, delay_s=60)`."""

    def put(count: int = 1, **parts: Any) -> list[RunId]:
        with database.connect() as connection:
            return enqueue(connection, [NewRun(parts.get("task_path", "app.task"), **{"args": [i], **_rest(parts)}) for i in range(count)])

    return put


def _rest(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parts.items() if name != "task_path"}
