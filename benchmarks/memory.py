"""Memory of a daemon by process: idle and after work, and what each further executor of a Django project has for itself.

    python -m benchmarks.memory [--tasks 2000] [--django-executors 6] [--json]

*Proportional* counts a page that several processes share once, divided among all of them, so other Pythons on the machine make it smaller;
*alone* is the sum as it would be without any. *Private* is what the end of a process would give back.
"""

import argparse
import compileall
import json
import statistics
from typing import Any

import psutil

from benchmarks.measures.alone import alone_mib
from benchmarks.report import remember
from benchmarks.stage import describe_machine, durable_server, fresh_database
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

PLAIN = {"path": [str(CHECKOUT)], "preload": ["benchmarks.plain_tasks"], "allowed_task_modules": ["benchmarks.plain_tasks."]}
SITE = "tests.support.django_site."
DJANGO = {
    "path": [str(CHECKOUT)],
    "preload": [f"{SITE}tasks"],
    "allowed_task_modules": [SITE],
    "django_settings_module": f"{SITE}settings",
}
NOT_OURS = ("postgres", "guard", "other")
Sizes = list[tuple[str, float, float]]
"""Kind of process, proportional and private MiB."""


def sizes_of(daemon: Daemon) -> Sizes:
    """Return the sizes of all processes but PostgreSQL's."""
    found = []
    for pid, kind in sorted(daemon.processes().items()):
        if kind not in NOT_OURS:
            memory = psutil.Process(pid).memory_full_info()
            found.append((kind, memory.pss / 2**20, memory.uss / 2**20))
    return found


def alone(daemon: Daemon) -> float:
    """Return the MiB of all processes but PostgreSQL's, as if no other Python ran on the machine."""
    return alone_mib(pid for pid, kind in daemon.processes().items() if kind not in NOT_OURS)


def _work_off(database: Database, task: str, tasks: int) -> None:
    with database.connect() as connection:
        enqueue(connection, [NewRun(task) for _ in range(tasks)])
        connection.commit()
    eventually(lambda: database.query("SELECT count(*) FROM task_lane") == [(0,)], timeout=120, what="the tasks have ended")
    assert database.query("SELECT DISTINCT status FROM task_runs") == [("SUCCESSFUL",)]


def measure_product(cluster: Cluster, tasks: int) -> dict[str, tuple[Sizes, float]]:
    """Return the sizes, and their sum alone, with two executors: idle since its start, and after *tasks* no-op tasks."""
    with fresh_database(cluster) as database:
        daemon = Daemon(demo_config(database.dsn, pool={"executors": 2}, app=PLAIN))
        try:
            daemon.start()
            idle = sizes_of(daemon), alone(daemon)
            _work_off(database, "benchmarks.plain_tasks.noop", tasks)
            return {"idle": idle, "after_work": (sizes_of(daemon), alone(daemon))}
        finally:
            daemon.close()


def measure_django(cluster: Cluster, executors: int, tasks: int) -> dict[str, Any]:
    """Return the private MiB of each executor of a Django project: idle, and after *tasks* tasks that each asked the database."""
    with fresh_database(cluster) as database:
        environment = {"DJANGO_SITE_DSN": database.dsn, "DJANGO_SITE_CONN_MAX_AGE": "None"}
        daemon = Daemon(demo_config(database.dsn, pool={"executors": executors}, app=DJANGO), env=environment)
        try:
            daemon.start()
            idle = _of_executors(sizes_of(daemon))
            _work_off(database, f"{SITE}tasks.backend", tasks)
            return {"idle": idle, "after_work": _of_executors(sizes_of(daemon)), "imported": _rss_of_nursery(daemon)}
        finally:
            daemon.close()


def _of_executors(sizes: Sizes) -> list[float]:
    return [private for kind, _, private in sizes if kind == "executor"]


def _rss_of_nursery(daemon: Daemon) -> float:
    (pid,) = daemon.pids("nursery")
    return float(psutil.Process(pid).memory_info().rss / 2**20)


def _print(product: dict[str, tuple[Sizes, float]], django: dict[str, Any]) -> None:
    for state, (sizes, whole) in product.items():
        print(f"\n{state.replace('_', ' '):14}{'proportional':>14}{'private':>10} MiB")
        for kind, shared, private in sizes:
            print(f"  {kind:12}{shared:14.1f}{private:10.1f}")
        print(f"  {'all':12}{sum(each for _, each, _ in sizes):14.1f}{sum(each for *_, each in sizes):10.1f}")
        print(f"  {'alone':12}{whole:14.1f}")
    print(
        f"\nDjango, {len(django['idle'])} executors of a nursery that holds {django['imported']:.0f} MiB; private MiB of each: median, most"
    )
    for state in ("idle", "after_work"):
        print(f"  {state.replace('_', ' '):12}{statistics.median(django[state]):14.1f}{max(django[state]):10.1f}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--django-executors", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # As an installer leaves it: a process that has to compile what it imports keeps half a MiB of holes.
    compileall.compile_dir(CHECKOUT / "reproq_supervisor", quiet=1)
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        product = measure_product(cluster, arguments.tasks)
        django = measure_django(cluster, arguments.django_executors, arguments.tasks)
    result = {"machine": machine, "product": product, "django": django}
    remember({"benchmark": "memory", **result})
    if arguments.json:
        print(json.dumps(result))
        return
    print(machine)
    _print(product, django)


if __name__ == "__main__":
    main()
