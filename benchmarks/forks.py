"""Forked tasks per second (`isolation: fork`, only the demo preloaded) beside bare forks of a process with the same modules.

    python -m benchmarks.forks [--rounds 3] [--tasks 2000] [--executors 2] [--json]

Floor and product take turns in one run; quote the ratio. The floor forks, lets the child lead a session and end, and reaps it, with as many
in flight as the product has; the product drains a backlog of no-op tasks, each with claim, hand-out, capture, result, kill of its group and
completion.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks.stage import describe_machine, durable_server, fresh_database, running_daemon
from reproq_supervisor.core.policy.fresh import executors_to_keep
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

NOOP = "workers.demo.tasks.noop"

_FLOOR = """
import gc, os, sys, time
import reproq_supervisor.executor.__main__, workers.demo.tasks
gc.disable()
gc.freeze()
forks, most = map(int, sys.argv[1:])
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
print(forks / (time.perf_counter() - began))
"""


def measure_floor(forks: int, most: int) -> float:
    """Return bare forks per second."""
    argv = [sys.executable, "-c", _FLOOR, str(forks), str(most)]
    return float(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure_product(cluster: Cluster, tasks: int, executors: int) -> float:
    """Return forked tasks per second, from the commit of the backlog to the end of its last task."""
    with fresh_database(cluster) as database, running_daemon(database, executors=executors, isolation="fork"):
        with database.connect() as connection:
            enqueue(connection, [NewRun(NOOP) for _ in range(tasks)])
            connection.commit()
            began = time.time()
        eventually(lambda: _left(database) == 0, timeout=300, interval=0.2, what="the backlog is worked off")
        ((finished,),) = database.query("SELECT extract(epoch FROM max(finished_at))::float8 FROM task_runs")
        assert database.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'") == [(tasks,)]
        return tasks / (float(finished) - began)


def _left(database: Database) -> int:
    ((count,),) = database.query("SELECT count(*) FROM (SELECT FROM task_lane LIMIT 1) AS any_row")
    return int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
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
                print(f"round {round_no + 1}: floor {floors[-1]:.0f} forks/s, product {products[-1]:.0f} tasks/s", flush=True)
    ratios = [product / floor for floor, product in zip(floors, products, strict=True)]
    result = {
        "machine": machine,
        "floor_forks_per_s": round(statistics.median(floors)),
        "product_tasks_per_s": round(statistics.median(products)),
        "ratio_to_floor": {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)},
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"\n{machine}; {options.tasks} no-op tasks, {options.executors} executors, median of {options.rounds}")
    print(f"  floor, bare forks       {result['floor_forks_per_s']:>10} forks/s")
    print(f"  product, forked tasks   {result['product_tasks_per_s']:>10} tasks/s   ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
