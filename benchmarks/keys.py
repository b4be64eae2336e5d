"""Tasks per second of runs with keys beside runs without, claimed and completed by shards' own calls, without executors.

    python -m benchmarks.keys [--rounds 5] [--tasks 10000] [--claimers 2]

The kinds take turns in one run, on one durable server: quote the ratios. `many`: every run has one of a thousand lock keys;
`limits`: one of a thousand concurrency keys with a limit of 2; `hot`: one of four concurrency keys with a limit of 50, which two
claimers with batches of 100 can just use to the full. Beside tasks/s stands the processor time of the claimers' server
processes for a task, which a busy machine changes less.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from benchmarks.stage import describe_machine, durable_server, fresh_database
from reproq_supervisor.core.runs import Ending, Outcome
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Shard, ended
from tests.store.test_concurrency import in_processes
from tests.support.postgres import Cluster

BATCH = 100
HOT_KEYS, HOT_LIMIT = 4, 50


def plain(n: int) -> NewRun:
    return NewRun("app.task", [n])


def many(n: int) -> NewRun:
    return NewRun("app.task", [n], lock_key=f"k{n * 7919 % 1000}")


def limits(n: int) -> NewRun:
    return NewRun("app.task", [n], concurrency_key=f"k{n * 7919 % 1000}", concurrency_limit=2)


def hot(n: int) -> NewRun:
    return NewRun("app.task", [n], concurrency_key=f"k{n % HOT_KEYS}", concurrency_limit=HOT_LIMIT)


KINDS: tuple[Callable[[int], NewRun], ...] = (plain, many, limits, hot)


def drain(dsn: str, worker_id: str) -> tuple[int, int, float]:
    """Claim and complete until nothing is left; return (cycles, those that claimed nothing, processor seconds of the server process)."""
    import psutil
    import psycopg

    shard, cycles, empty = Shard(dsn, worker_id, application_name=worker_id), 0, 0
    with ended(shard), psycopg.connect(dsn, autocommit=True) as looker:
        endings: tuple[Ending, ...] = ()
        while True:
            reply = shard.cycle(endings=endings, claims=(("default", BATCH),))
            endings = tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"null", None, 0.001) for c in reply.claimed)
            cycles += 1
            if not reply.claimed:
                empty += 1
                if looker.execute("SELECT FROM task_lane LIMIT 1").fetchone() is None:
                    ((pid,),) = looker.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", (worker_id,)).fetchall()
                    return cycles, empty, sum(psutil.Process(pid).cpu_times()[:2])


def measure(cluster: Cluster, kind: Callable[[int], NewRun], tasks: int, claimers: int) -> tuple[float, int, int, float]:
    """Return tasks/s from the first claim to the last end, the cycles, how many claimed nothing, and processor microseconds a task."""
    with fresh_database(cluster) as database:
        with database.connect() as connection:
            enqueue(connection, [kind(n) for n in range(tasks)])
        told = in_processes(drain, [(database.dsn, f"worker-{n}") for n in range(claimers)])
        ((took_s, done),) = database.query(
            "SELECT extract(epoch FROM max(finished_at) - min(last_attempted_at))::float8, count(*)::int"
            " FROM task_runs WHERE status = 'SUCCESSFUL'"
        )
        assert done == tasks
        cycles, empty, spent_s = (sum(each[n] for each in told) for n in range(3))
        return tasks / took_s, cycles, empty, spent_s / tasks * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--claimers", type=int, default=2)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {kind.__name__: [] for kind in KINDS}
    costs: dict[str, list[float]] = {kind.__name__: [] for kind in KINDS}
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        for round_no in range(options.rounds):
            began = time.monotonic()
            for kind in KINDS:
                rate, cycles, empty, cost_us = measure(cluster, kind, options.tasks, options.claimers)
                rates[kind.__name__].append(rate)
                costs[kind.__name__].append(cost_us)
                told = f"{rate:>8.0f}/s {cost_us:>4.0f} us  {cycles} cycles, {empty} of them claimed nothing"
                print(f"round {round_no + 1}: {kind.__name__:<7}{told}", flush=True)
            print(f"  {time.monotonic() - began:.0f} s")
    print(f"\n{machine}; {options.tasks} tasks, {options.claimers} claimers, batches of {BATCH}, median of {options.rounds}")
    for name, found in rates.items():
        ratios = [rate / base for rate, base in zip(found, rates["plain"], strict=True)]
        spread = f"ratio {statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {name:<7}{statistics.median(found):>8.0f} tasks/s   {spread}   server {statistics.median(costs[name]):.0f} us a task")


if __name__ == "__main__":
    main()
