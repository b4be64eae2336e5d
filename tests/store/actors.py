"""The store's asynchronous classes for tests that read top to bottom, and short ways to say what tests often say."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

from reproq_supervisor.core.runs import Claimed, CycleReply, CycleRequest, Ending, LeaseNo, Outcome, RunId, Started
from reproq_supervisor.store.keeper import KeeperStore
from reproq_supervisor.store.shard import ShardStore
from tests.support.postgres import Database

T = TypeVar("T")


class Actor:
    """Runs coroutines one after the other on an event loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def connect(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine that makes this actor useful; without its result there is nothing to end later."""
        try:
            return self.run(coroutine)
        except BaseException:
            self._runner.close()
            raise

    def end(self) -> None:
        self._runner.close()


class Shard(Actor):
    """A shard as the database sees it."""

    def __init__(self, dsn: str, worker_id: str = "worker-1", **options: Any) -> None:
        super().__init__()
        self.worker_id = worker_id
        self.store = self.connect(ShardStore.connect(dsn, worker_id, **options))

    def cycle(self, lease_s: float = 60, **parts: Any) -> CycleReply:
        return self.run(self.store.cycle(CycleRequest(lease_s, **parts)))

    def claim(self, wanted: int = 1, queue: str = "default", lease_s: float = 60) -> tuple[Claimed, ...]:
        return self.cycle(lease_s, claims=((queue, wanted),)).claimed

    def claim_one(self, queue: str = "default", lease_s: float = 60) -> Claimed:
        (claimed,) = self.claim(1, queue, lease_s)
        return claimed

    def end_run(self, claimed: Claimed, outcome: Outcome, value: bytes | None = None, **parts: Any) -> CycleReply:
        parts = {"started_s_ago": None if outcome in (Outcome.RELEASE, Outcome.PUT_BACK) else 0.01, **parts}
        return self.cycle(endings=(Ending(claimed.result_id, claimed.lease_no, outcome, value, **parts),))

    def succeed(self, claimed: Claimed, value: bytes = b"null") -> CycleReply:
        return self.end_run(claimed, Outcome.SUCCEED, value)

    def fail(self, claimed: Claimed, kind: str = "app_error", message: str = "it broke", **parts: Any) -> CycleReply:
        return self.end_run(claimed, Outcome.FAIL, f'{{"kind": "{kind}", "message": "{message}"}}'.encode(), **parts)

    def release(self, claimed: Claimed) -> CycleReply:
        return self.end_run(claimed, Outcome.RELEASE)

    def show(self, claimed: Claimed, started_s_ago: float = 1) -> CycleReply:
        return self.cycle(started=(Started(claimed.result_id, claimed.lease_no, started_s_ago),))

    def renew(self, claimed: Claimed, lease_s: float = 60) -> CycleReply:
        return self.cycle(lease_s, renew=((claimed.result_id, claimed.lease_no),))

    def held(self, *claimed: Claimed) -> set[tuple[RunId, LeaseNo]]:
        return self.run(self.store.held([(c.result_id, c.lease_no) for c in claimed]))

    def settle_idle(self, *queues: str) -> float:
        return self.run(self.store.settle_idle(queues or ("default",)))

    def end(self) -> None:
        self.run(self.store.close())
        super().end()


class Keeper(Actor):
    """A keeper as the database sees it."""

    def __init__(self, dsn: str, **options: Any) -> None:
        super().__init__()
        self.store = self.connect(KeeperStore.connect(dsn, **options))

    def end(self) -> None:
        self.run(self.store.close())
        super().end()


@contextmanager
def ended(*actors: Actor) -> Iterator[None]:
    """End *actors* at the end of the block."""
    try:
        yield
    finally:
        for actor in actors:
            actor.end()


def record(database: Database, run: int) -> dict[str, Any]:
    """Return all columns of a record."""
    with database.connect(row_factory=psycopg.rows.dict_row) as connection:
        row = connection.execute("SELECT * FROM task_runs WHERE result_id = %s", (run,)).fetchone()
    assert row is not None, f"no run {run}"
    return row


def lane(database: Database, run: int) -> dict[str, Any] | None:
    """Return all columns of a lane row."""
    with database.connect(row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute("SELECT * FROM task_lane WHERE result_id = %s", (run,)).fetchone()


def every_look_is_dear(database: Database) -> None:
    """Have every look at the holders and waiters of a key note where the next one begins, as only dear ones do."""
    database.query("CREATE OR REPLACE FUNCTION reproq_dear_look() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT -1000000'")


def assert_invariant(database: Database) -> None:
    """A record has not ended exactly when it has a lane row."""
    assert database.query("SELECT * FROM reproq_check_invariant(0)") == []
