"""What may stand beside the tasks that can run now: finished, due later, blocked, throttled, and a snapshot that somebody holds."""

from collections.abc import Callable

from benchmarks.contenders.contender import Queue
from benchmarks.contenders.meter import new_meter
from benchmarks.contenders.product import ProductQueue
from reproq_supervisor.store.controls import set_limit
from reproq_supervisor.store.enqueue import NewRun
from tests.support.eventually import eventually

_PART = 50_000
_KEY = "full"
_THROTTLED = "benchmarks.contenders.tasks.throttled"
# Through the trigger a million take ten times as long, and what has ended has nothing but its record.
_FINISHED = """
INSERT INTO task_runs (queue_name, spec_json, spec_hash, task_path, status, enqueued_at, started_at, finished_at, dedupe_key)
SELECT 'default', '{"task_path": "app.task"}', n::text, 'app.task', 'SUCCESSFUL', now(), now(), now(), NULL FROM generate_series(1, %s) n
"""
_HOLD = """
UPDATE task_lane
SET state = 'running', park_reason = NULL, on_key = NULL, leased_by = 'holder', lease_no = 1, leased_until = 'infinity'
WHERE result_id = (SELECT min(result_id) FROM task_lane)
"""


def finished(queue: Queue, count: int) -> None:
    """Put *count* runs there that have ended."""
    with _of_product(queue).database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(_FINISHED, (count,))


def due_later(queue: Queue, count: int) -> None:
    """Put *count* runs there that are due tomorrow."""
    _enqueue(queue, count, NewRun("app.task", delay_s=86_400))


def blocked(queue: Queue, count: int) -> None:
    """Put *count* runs there that wait for one key, which somebody has."""
    _enqueue(queue, count, NewRun("app.task", lock_key=_KEY))
    _of_product(queue).database.query(_HOLD)


def throttled(queue: Queue, count: int) -> None:
    """Put *count* runs there that wait for tokens of a bucket that refills once in hours; all have met it."""
    product = _of_product(queue)
    with product.database.connect() as connection:
        set_limit(connection, f"task:{_THROTTLED}", 1e-4, 1)
        connection.execute("UPDATE rate_limits SET current_tokens = 0 WHERE key LIKE 'task:%%'")
    _enqueue(queue, count, NewRun(_THROTTLED))
    with new_meter(1) as meter, product.workers(meter):
        eventually(lambda: not _ready(product), timeout=300, interval=0.5, what="all that wait for tokens are parked")


def _ready(queue: ProductQueue) -> bool:
    return bool(queue.database.query("SELECT FROM task_lane WHERE state = 'ready' LIMIT 1"))


def _enqueue(queue: Queue, count: int, run: NewRun) -> None:
    product = _of_product(queue)
    for first in range(0, count, _PART):
        product.client.enqueue_many([run] * min(_PART, count - first))


def _of_product(queue: Queue) -> ProductQueue:
    assert isinstance(queue, ProductQueue), "only this product knows these states"
    return queue


KINDS: dict[str, Callable[[Queue, int], None]] = {
    "finished": finished,
    "later": due_later,
    "blocked": blocked,
    "throttled": throttled,
}
