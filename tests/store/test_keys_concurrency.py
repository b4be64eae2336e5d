"""Many claimers, few keys: never more than a key admits, and nobody is forgotten, whoever dies meanwhile."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun
from tests.store.actors import assert_invariant, every_look_is_dear
from tests.store.test_concurrency import in_processes
from tests.support.postgres import Database

CLAIMERS = 16
LOCKS, LIMITS, LIMIT = 6, 4, 3
Span = tuple[str | None, str | None, float, float]


def mixed_run(rng: random.Random, n: int) -> NewRun:
    """Return a run with a lock, a limit, both or neither."""
    kind = rng.randrange(5)
    lock = f"l{rng.randrange(LOCKS)}" if kind in (0, 1, 4) else None
    limit = f"c{rng.randrange(LIMITS)}" if kind in (2, 3, 4) else None
    return NewRun(
        "app.task",
        [lock, limit, n],
        queue_name=rng.choice(("a", "b")),
        priority=rng.randrange(3),
        lock_key=lock,
        concurrency_key=limit,
        concurrency_limit=LIMIT if limit else 0,
        max_attempts=100,
    )


def produce(dsn: str, count: int, seed: int) -> None:
    """Enqueue in bulks and one by one, in transactions that stay open for a while and some that are rolled back."""
    import random
    import time

    import psycopg

    from reproq_supervisor.store.enqueue import enqueue
    from tests.store.test_keys_concurrency import mixed_run

    rng, made = random.Random(seed), 0
    with psycopg.connect(dsn) as connection:
        while made < count:
            runs = [mixed_run(rng, made + n) for n in range(min(count - made, rng.choice((1, 1, 40))))]
            enqueue(connection, runs)
            time.sleep(rng.choice((0, 0, 0.02)))  # how long the transaction stays open
            if rng.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()
                made += len(runs)


def work(dsn: str, worker_id: str, total: int, seed: int, dies: bool) -> list[Span]:
    """Claim and end until *total* runs have ended; return (lock, limit, held from, held until) of every run, by the machine's clock.

    A span begins after the claim was answered and ends before the ending is sent: spans that overlap were held at once.
    """
    import json
    import random
    import time

    import psycopg

    from reproq_supervisor.core.runs import Ending, Outcome
    from tests.store.actors import Keeper, Shard, ended

    rng, spans = random.Random(seed), []
    endings: list[Ending] = []
    shard, keeper = Shard(dsn, worker_id), Keeper(dsn)
    with ended(shard, keeper), psycopg.connect(dsn, autocommit=True) as looker:
        while True:
            claims = tuple((queue, rng.randint(1, 5)) for queue in rng.sample("ab", 2))
            reply = shard.cycle(1.0 if dies else 60.0, endings=tuple(endings), claims=claims)
            began, endings = time.monotonic(), []
            if dies and len(spans) > 5 and reply.claimed:
                # As after kill -9: the connection ends, and the leases stay until they are reclaimed.
                return spans
            if not reply.claimed:
                keeper.run(keeper.store.reclaim())
                keeper.run(keeper.store.wake_due())
                row = looker.execute("SELECT count(*) FROM task_runs WHERE status IN ('SUCCESSFUL', 'FAILED')").fetchone()
                if row is not None and row[0] >= total:
                    return spans
            time.sleep(rng.uniform(0, 0.003))  # the task's work
            for claimed in reply.claimed:
                lock, limit, _ = json.loads(claimed.spec)["args"]
                outcome = rng.choice((*[Outcome.SUCCEED] * 6, Outcome.FAIL, Outcome.PUT_BACK))
                value = None if outcome is Outcome.PUT_BACK else b"null"
                spans.append((lock, limit, began, time.monotonic()))
                endings.append(Ending(claimed.result_id, claimed.lease_no, outcome, value, 0.0, 0.001))


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """Return how many of these spans overlap at most."""
    now, most = 0, 0
    for _, step in sorted([(began, 1) for began, _ in spans] + [(until, -1) for _, until in spans]):
        now += step
        most = max(most, now)
    return most


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("looks", ["usual", "dear"])
def test_sixteen_claimers_keep_every_limit_and_forget_nobody(database: Database, looks: str) -> None:
    if looks == "dear":
        every_look_is_dear(database)
    total = 1200
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(produce, (database.dsn, total // 2, seed)) for seed in (1, 2)]
    calls += [(work, (database.dsn, f"worker-{n}", total, n, n % 4 == 0)) for n in range(CLAIMERS)]
    spans: list[Span] = [span for share in in_processes(call, calls) for span in share or ()]

    by_key: dict[str, list[tuple[float, float]]] = {}
    for lock, limit, began, until in spans:
        for key in filter(None, (lock, limit)):
            by_key.setdefault(key, []).append((began, until))
    assert len(by_key) == LOCKS + LIMITS
    assert {key: most_at_once(held) for key, held in by_key.items() if most_at_once(held) > (1 if key[0] == "l" else LIMIT)} == {}
    assert database.query("SELECT count(*) FROM task_lane") == [(0,)]
    assert database.query("SELECT count(*) FROM task_runs WHERE status IN ('SUCCESSFUL', 'FAILED')") == [(total,)]
    assert max(most_at_once(held) for key, held in by_key.items() if key[0] == "c") == LIMIT, "limits are used"
    assert_invariant(database)


def call(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call *work*; for `in_processes`, which calls one function."""
    return work(*arguments)
