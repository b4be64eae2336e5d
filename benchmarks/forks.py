"""Forked tasks per second (`isolation: fork`, only the demo preloaded) beside bare forks of a process with the same modules.

    python -m benchmarks.forks [--rounds 5] [--tasks 2000] [--executors 2] [--json]

Floor and product take turns in one run; quote the ratio. The floor forks, lets the child lead a session and end, and reaps it, with as many
in flight as the product has; the product drains a backlog of no-op tasks, each with claim, hand-out, capture, result, kill of its group and
completion. Beside the rates stand the milliseconds of processor that one fork or one task takes, of all but the database's
processes: others that use the machine meanwhile change them less.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import psutil

from benchmarks.report import remember
from benchmarks.stage import at_least_one, describe_machine, durable_server, fresh_database, running_daemon
from reproq_supervisor.core.policy.fresh import executors_to_keep
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

NOOP = "workers.demo.tasks.noop"

_FLOOR = """
import gc, os, sys, time
import reproq_supervisor.executor.__main__, workers.demo.tasks
gc.disable()
gc.freeze()
forks, most = map(int, sys.argv[1:])
boot = time.process_time()
began, alive = time.perf_counter(), 0
for _ in range(forks):
    if alive == most:
        os.waitpid(-1, 0)
        alive -= 1
    if os.fork() == 0:
        os.setsid()
        os._exit(0)
    alive += 1
while alive:
    os.waitpid(-1, 0)
    alive -= 1
elapsed, times = time.perf_counter() - began, os.times()
print(forks / elapsed, (times.user + times.system + times.children_user + times.children_system - boot) / forks * 1000)
"""


class Measured(NamedTuple):
    """Of forks or of tasks."""

    per_s: float
    cpu_ms_each: float


def measure_floor(forks: int, most: int) -> Measured:
    """Measure bare forks."""
    argv = [sys.executable, "-c", _FLOOR, str(forks), str(most)]
    return Measured(*map(float, subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.split()))


def measure_product(cluster: Cluster, tasks: int, executors: int) -> Measured:
    """Measure forked tasks, from the commit of the backlog to the end of its last task."""
    with fresh_database(cluster) as database, running_daemon(database, executors=executors, isolation="fork") as daemon:
        before = _cpu_s(daemon)
        with database.connect() as connection:
            enqueue(connection, [NewRun(NOOP) for _ in range(tasks)])
            connection.commit()
            began = time.time()
        eventually(lambda: _left(database) == 0, timeout=300, interval=0.2, what="the backlog is worked off")
        ((finished,),) = database.query("SELECT extract(epoch FROM max(finished_at))::float8 FROM task_runs")
        assert database.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'") == [(tasks,)]
        return Measured(tasks / (float(finished) - began), (_cpu_s(daemon) - before) / tasks * 1000)


def _cpu_s(daemon: Daemon) -> float:
    """Return the processor time of shard and nursery, and of all executors that were reaped."""
    (shard,), (nursery,) = daemon.pids("shard"), daemon.pids("nursery")
    own, theirs = psutil.Process(shard).cpu_times(), psutil.Process(nursery).cpu_times()
    return own.user + own.system + sum((theirs.user, theirs.system, theirs.children_user, theirs.children_system))


def _left(database: Database) -> int:
    ((count,),) = database.query("SELECT count(*) FROM (SELECT FROM task_lane LIMIT 1) AS any_row")
    return int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    most = executors_to_keep(options.executors, single_use=True)
    floors, products = [], []
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        for round_no in range(options.rounds):
            floors.append(measure_floor(options.tasks, most))
            products.append(measure_product(cluster, options.tasks, options.executors))
            if not options.json:
                print(f"round {round_no + 1}: floor {floors[-1].per_s:.0f} forks/s, product {products[-1].per_s:.0f} tasks/s", flush=True)
    ratios = [product.per_s / floor.per_s for floor, product in zip(floors, products, strict=True)]
    cpu_ratios = [floor.cpu_ms_each / product.cpu_ms_each for floor, product in zip(floors, products, strict=True)]
    result = {
        "machine": machine,
        "floor_forks_per_s": round(statistics.median(floor.per_s for floor in floors)),
        "product_tasks_per_s": round(statistics.median(product.per_s for product in products)),
        "ratio_to_floor": {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)},
        "floor_cpu_ms": round(statistics.median(floor.cpu_ms_each for floor in floors), 2),
        "product_cpu_ms": round(statistics.median(product.cpu_ms_each for product in products), 2),
        "cpu_ratio_to_floor": round(statistics.median(cpu_ratios), 3),
    }
    remember({"benchmark": "forks", **result, **{name: getattr(options, name) for name in ("rounds", "tasks", "executors")}})
    if options.json:
        print(json.dumps(result))
        return
    print(f"\n{machine}; {options.tasks} no-op tasks, {options.executors} executors, median of {options.rounds}")
    print(f"  floor, bare forks       {result['floor_forks_per_s']:>10} forks/s")
    print(f"  product, forked tasks   {result['product_tasks_per_s']:>10} tasks/s   ratio {statistics.median(ratios):.2f}")
    cpu = f"{result['floor_cpu_ms']:>10} ms of processor, product {result['product_cpu_ms']} ms"
    print(f"  each                    {cpu}   ratio {result['cpu_ratio_to_floor']:.2f}")


if __name__ == "__main__":
    main()
