"""Claimers that are killed in the middle, a paused queue, and one that nobody serves: keys hold, none stays taken, nobody is forgotten."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import multiprocess
import pytest

from reproq_supervisor.core.runs import Ending, Outcome
from reproq_supervisor.store import controls
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Shard, assert_invariant, ended
from tests.support.eventually import eventually
from tests.support.postgres import Database

CLAIMERS = 16
DEATHS = 12
SERVED, ASIDE = 900, 40
LIMIT = 3
OVERFULL = """
SELECT k.name, count(*) FROM task_lane l CROSS JOIN LATERAL (VALUES (l.lock_name, 1), (l.limit_name, l.limit_size)) AS k (name, size)
WHERE l.state = 'running' AND k.name IS NOT NULL GROUP BY k.name HAVING count(*) > max(k.size)
"""
DONE = "SELECT count(*)::int FROM task_runs WHERE status = 'SUCCESSFUL'"


def hammer(dsn: str, worker_id: str) -> None:
    """Claim and complete until killed, as shard and keeper at once."""
    from tests.store.actors import Keeper, Shard

    shard, keeper = Shard(dsn, worker_id), Keeper(dsn)
    endings: tuple[Ending, ...] = ()
    while True:
        reply = shard.cycle(1.0, endings=endings, claims=(("a", 2), ("b", 2), ("paused", 2)))
        endings = tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"null", None, 0.001) for c in reply.claimed)
        if not reply.claimed:
            keeper.run(keeper.store.reclaim())
            keeper.run(keeper.store.wake_due())


@contextmanager
def hammering(dsn: str) -> Iterator[list[Any]]:
    """Run the claimers; kill those that are left."""
    started = []
    try:
        for n in range(CLAIMERS):
            started.append(start(dsn, f"worker-{n}"))
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def start(dsn: str, worker_id: str) -> Any:
    process = multiprocess.get_context("spawn").Process(target=hammer, args=(dsn, worker_id), daemon=True)
    process.start()
    return process


def keyed(rng: random.Random, n: int, queue: str) -> NewRun:
    lock, limit = rng.choice((("l1", None), ("l2", None), (None, "c1"), (None, "c2"), ("l1", "c1")))
    limits: dict[str, Any] = {"concurrency_key": limit, "concurrency_limit": LIMIT} if limit else {}
    return NewRun("app.task", [n], queue_name=queue, lock_key=lock, max_attempts=100, **limits)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_keys_outlive_their_holders_and_queues_that_nobody_serves(database: Database) -> None:
    rng = random.Random(7)
    with database.connect() as connection:
        controls.pause(connection, "paused", None)
        # These come first, so that every key would be theirs.
        enqueue(connection, [keyed(rng, n, "paused" if n % 2 else "unserved") for n in range(ASIDE)])
        enqueue(connection, [keyed(rng, n, rng.choice("ab")) for n in range(SERVED)])

        def has_done(count: int) -> bool:
            assert connection.execute(OVERFULL).fetchall() == []
            row = connection.execute(DONE).fetchone()
            return row is not None and row[0] >= count

        with hammering(database.dsn) as processes:
            for death in range(1, DEATHS + 1):
                eventually(lambda: has_done(SERVED * death // (DEATHS + 2)), timeout=300, what=f"work goes on after {death - 1} deaths")  # noqa: B023
                processes[death].kill()
            eventually(lambda: has_done(SERVED), timeout=300, what="all that is served has ended")
        assert not has_done(SERVED + 1), "nobody served the others"
        controls.resume(connection, "paused")

    shard = Shard(database.dsn, "last")
    with ended(shard):
        left = ASIDE
        for queue in ("paused", "unserved"):
            while claimed := shard.claim(9, queue):
                left -= len(claimed)
                shard.cycle(endings=tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"null", None, 0.001) for c in claimed))
        assert left == 0, "nobody was forgotten"
    assert_invariant(database)
