"""Many processes at once: every run ends once, no two hold one lease, nothing is lost."""

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import multiprocess
import psycopg
import pytest

from reproq_supervisor.core.runs import RunId
from tests.store.actors import Keeper, assert_invariant, ended
from tests.support.postgres import Database

Put = Callable[..., list[RunId]]
PROCESSES = 6


def in_processes(work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Call *work* once with each of *arguments*, each in a fresh interpreter, at the same time."""
    with multiprocess.get_context("spawn").Pool(len(arguments)) as pool:
        return list(pool.starmap(work, arguments))


def claim_all(dsn: str, worker_id: str) -> list[int]:
    """Claim in small batches until nothing is left."""
    from tests.store.actors import Shard, ended

    shard, taken = Shard(dsn, worker_id), []
    with ended(shard):
        while claims := shard.claim(7):
            taken += [claimed.result_id for claimed in claims]
    return taken


def test_concurrent_claimers_share_without_overlap(put: Put, database: Database) -> None:
    ids = put(3000)
    shares = in_processes(claim_all, [(database.dsn, f"worker-{n}") for n in range(PROCESSES)])
    taken = Counter(run for share in shares for run in share)
    assert taken == Counter(ids)
    assert database.query("SELECT count(DISTINCT (result_id, lease_no)) FROM task_lane WHERE state = 'running'") == [(3000,)]


def work_and_misbehave(dsn: str, worker_id: str, seed: int, seconds: float) -> list[tuple[int, int]]:
    """Claim and end runs, some late, some twice, some never; return (run, lease) of every claim. A result names its lease."""
    import random
    import time

    from reproq_supervisor.core.runs import Ending, Outcome
    from tests.store.actors import Shard, ended

    outcomes = [outcome for outcome in Outcome if outcome is not Outcome.COMPLETED]  # that one ends nothing
    rng, claimed, recent = random.Random(seed), [], []
    shard, until = Shard(dsn, worker_id), time.monotonic() + seconds
    with ended(shard):
        while time.monotonic() < until:
            claims = list(shard.claim(rng.randint(1, 8), rng.choice(("a", "b")), lease_s=rng.choice((0.0, 60.0, 60.0))))
            told = rng.sample(claims, rng.randint(0, len(claims))) + rng.sample(recent, min(len(recent), 2))
            claimed += [(c.result_id, c.lease_no) for c in claims]
            recent = (recent + claims)[-50:]
            endings = {
                c.result_id: Ending(c.result_id, c.lease_no, rng.choice(outcomes), f'{{"lease": {c.lease_no}}}'.encode(), 0.0) for c in told
            }
            shard.cycle(endings=tuple(endings.values()), renew=tuple((c.result_id, c.lease_no) for c in claims))
    return claimed


def interfere(dsn: str, seed: int, seconds: float) -> None:
    """Do what keepers, admin pages and people do, all at once."""
    import random
    import time

    rng, until = random.Random(seed), time.monotonic() + seconds
    statements = (
        "SELECT reproq_reclaim(20)",
        "SELECT reproq_wake_due(20)",
        "SELECT reproq_release_workers(ARRAY['worker-0'], 20)",
        "SELECT reproq_settle_wishes(20)",
        "SELECT reproq_repair(0, 1000)",
        "SELECT reproq_rekey('a', 0, 500)",
        "SELECT reproq_cancel(ARRAY(SELECT (random() * 3000)::bigint FROM generate_series(1, 5)))",
        "UPDATE task_runs SET status = 'CANCELLED' WHERE result_id % 600 = 7 AND status = 'READY'",
        "UPDATE task_runs SET cancel_requested = true WHERE result_id = (random() * 3000)::bigint",
        "UPDATE task_runs SET priority = 5 WHERE result_id IN (SELECT (random() * 3000)::bigint FROM generate_series(1, 5))",
        "UPDATE task_runs SET status = 'READY', attempts = 0 WHERE result_id = (random() * 3000)::bigint AND status = 'FAILED'",
        "DELETE FROM task_runs WHERE result_id = (random() * 3000)::bigint",
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        while time.monotonic() < until:
            # Others lock several records in any order, as we do in ours: a deadlock among records is theirs to retry.
            try:
                connection.execute(rng.choice(statements).encode())
            except psycopg.errors.DeadlockDetected:
                continue


@pytest.mark.timeout(900)
def test_nothing_is_lost_or_done_twice_while_everybody_interferes(put: Put, database: Database) -> None:
    for queue in ("a", "b"):
        put(1500, queue_name=queue, max_attempts=5)
    seed, seconds = random.randrange(1_000_000), 4.0
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    workers = [(work_and_misbehave, (database.dsn, f"worker-{n}", seed + n, seconds)) for n in range(3)]
    others = [(interfere, (database.dsn, seed + 10 + n, seconds)) for n in range(2)]
    with multiprocess.get_context("spawn").Pool(5) as pool:
        results = [job.get(timeout=300) for job in [pool.apply_async(work, arguments) for work, arguments in workers + others]]
    assert_invariant(database)
    claimed = [claim for result in results[: len(workers)] for claim in result] + work_off(database)
    assert database.query("SELECT 1 FROM task_lane") == []
    assert database.query("SELECT DISTINCT status FROM task_runs WHERE status NOT IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')") == []
    # A result is that of the last lease: no later claim of the run, and no result of a superseded attempt.
    last_lease = dict(sorted(claimed))
    results_stored = database.query("SELECT result_id, (return_json ->> 'lease')::bigint FROM task_runs WHERE status = 'SUCCESSFUL'")
    assert len(results_stored) > 100
    assert [(run, lease, last_lease[run]) for run, lease in results_stored if lease != last_lease[run]] == []


def work_off(database: Database) -> list[tuple[int, int]]:
    """Work off what is left, as an orderly worker and keeper do; return (run, lease) of every claim."""
    from tests.store.actors import Shard

    shard, keeper, claimed = Shard(database.dsn, "orderly"), Keeper(database.dsn), []
    deadline = time.monotonic() + 300
    with ended(shard, keeper):
        while database.query("SELECT 1 FROM task_lane LIMIT 1"):
            assert time.monotonic() < deadline, "the rest is not worked off"
            database.query("UPDATE task_lane SET leased_until = now() - interval '1 s' WHERE state = 'running'")
            database.query("UPDATE task_lane SET due_at = now() WHERE state = 'parked'")
            keeper.run(keeper.store.reclaim(1000))
            keeper.run(keeper.store.wake_due(1000))
            for queue in ("a", "b"):
                for claim in shard.claim(500, queue):
                    claimed.append((claim.result_id, claim.lease_no))
                    shard.succeed(claim, f'{{"lease": {claim.lease_no}}}'.encode())
    return claimed


def enqueue_same(dsn: str, worker_id: str) -> list[int]:
    """Enqueue the same fifty deduplicated runs again and again."""

    from reproq_supervisor.store.commands import NewRun, enqueue

    with psycopg.connect(dsn, autocommit=True) as connection:
        return [run for _ in range(20) for run in enqueue(connection, [NewRun("app.task", [n], dedupe=True) for n in range(50)])]


def test_concurrent_producers_of_equal_runs_agree_on_one(database: Database) -> None:
    shares = in_processes(enqueue_same, [(database.dsn, f"p{n}") for n in range(4)])
    assert len({run for share in shares for run in share}) == 50
    assert database.query("SELECT count(*) FROM task_runs") == [(50,)]
