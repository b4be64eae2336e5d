"""What those are told who size a pool: how much waits, and how many share it."""

from collections.abc import Callable

import pytest

from reproq_supervisor.core.runs import QueueLoad, RunId
from tests.store.actors import Shard
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]


def load(shard: Shard, *queues: str, most: int = 1000) -> QueueLoad:
    return shard.run(shard.store.load(queues or ("default",), most))


def test_only_what_is_ready_counts_up_to_the_bound(put: Put, shard: Shard, database: Database) -> None:
    runs = put(12)
    shard.claim(2)
    database.query("UPDATE task_runs SET run_after = now() + interval '1 hour' WHERE result_id = %s RETURNING 1", runs[-1])
    assert load(shard) == QueueLoad(9, 1)
    assert load(shard, most=4).waiting == 4
    assert load(shard, "default", "other", most=9).waiting == 9
    assert load(shard, "other").waiting == 0


def test_a_paused_queue_has_nothing_for_anybody(put: Put, shard: Shard, database: Database) -> None:
    put(5)
    database.query("INSERT INTO reproq_queue_controls (queue_name, paused) VALUES ('default', true)")
    assert load(shard).waiting == 0


@pytest.mark.parametrize(
    ("seen", "queues", "counts"), [("1 s", '["default"]', True), ("2 min", '["default"]', False), ("1 s", '["other"]', False)]
)
def test_who_was_seen_of_late_and_serves_one_of_the_queues_shares(
    shard: Shard, database: Database, seen: str, queues: str, counts: bool
) -> None:
    database.query(
        "INSERT INTO reproq_workers (worker_id, hostname, concurrency, queues, last_seen_at)"
        " VALUES ('else', 'h', 1, %s::jsonb, now() - %s::interval)",
        queues,
        seen,
    )
    shard.run(shard.store.announce(hostname="h", concurrency=1, queues=["default"], version="1"))
    assert load(shard, "default", "third").workers == (2 if counts else 1)
