"""The modes of an executor side by side: no-op tasks and tasks that wait, per second, with one executor each.

    python -m benchmarks.modes [--tasks 5000] [--slots 50] [--json]

What a mode is good for is a ratio: waiting tasks gain by slots, computing ones do not, and a process for each costs memory.
"""

import argparse
import json
import time

import psutil

from benchmarks.stage import describe_machine, durable_server, fresh_database, running_daemon
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.eventually import eventually
from tests.support.postgres import Cluster

TASKS = {
    "no-op function": NewRun("workers.demo.tasks.noop"),
    "no-op coroutine": NewRun("workers.demo.tasks.coroutine_echo", args=[1]),
    "coroutine waiting 50 ms": NewRun("workers.demo.tasks.coroutine_nap", args=[0.05]),
    "function waiting 50 ms": NewRun("workers.demo.tasks.nap", args=[0.05]),
}


def measure(cluster: Cluster, run: NewRun, tasks: int, **pool: object) -> dict[str, float]:
    """Return tasks/s from the commit of a backlog to the end of its last task, and the executor's own memory at the end."""
    with fresh_database(cluster) as database, running_daemon(database, executors=1, **pool) as daemon:
        with database.connect() as connection:
            enqueue(connection, [run] * tasks)
            connection.commit()
            began = time.time()
        eventually(
            lambda: database.query("SELECT count(*) FROM task_lane") == [(0,)], timeout=600, interval=0.2, what="the backlog is worked off"
        )
        ((finished, good),) = database.query(
            "SELECT extract(epoch FROM max(finished_at))::float8, count(*) FILTER (WHERE status = 'SUCCESSFUL') FROM task_runs"
        )
        assert good == tasks
        uss = psutil.Process(daemon.pids("executor")[0]).memory_full_info().uss
        return {"tasks_per_s": tasks / (finished - began), "own_memory_mib": uss / 2**20}


def main() -> None:
    """Measure every mode with every kind of task, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000, help="no-op tasks; a twentieth of them wait")
    parser.add_argument("--slots", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    shared = {"slots": arguments.slots}
    modes: dict[str, dict[str, object]] = {"process": {}, "thread": {"mode": "thread", **shared}, "async": {"mode": "async", **shared}}
    found: dict[str, dict[str, dict[str, float]]] = {}
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        for name, run in TASKS.items():
            tasks = arguments.tasks if name.startswith("no-op") else max(100, arguments.tasks // 20)
            found[name] = {mode: measure(cluster, run, tasks, **pool) for mode, pool in modes.items()}
    if arguments.json:
        print(json.dumps({"machine": machine, "slots": arguments.slots, "tasks": found}))
        return
    print(f"{machine}; one executor, {arguments.slots} slots in modes thread and async")
    for name, by_mode in found.items():
        base = by_mode["process"]["tasks_per_s"]
        for mode, figures in by_mode.items():
            rate = figures["tasks_per_s"]
            print(f"{name:25} {mode:8} {rate:8.0f}/s {rate / base:6.2f} of process {figures['own_memory_mib']:7.1f} MiB of its own")


if __name__ == "__main__":
    main()
