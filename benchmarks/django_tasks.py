"""No-op tasks of Django per second: in warm executors, and with one interpreter for each, as the older worker does.

    python -m benchmarks.django_tasks [--tasks 20000] [--single 40] [--executors 2] [--json]

Both in one run, on one server, with as many executors. Each is timed from the commit of its backlog to the end of its last task.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.report import remember
from benchmarks.stage import describe_machine, durable_server, fresh_database
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import CHECKOUT, Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

SITE = "tests.support.django_site."
TASK = "reproq_django.tasks.debug_noop_task"
APP = {
    "path": [str(CHECKOUT)],
    "preload": ["reproq_django.tasks"],
    "allowed_task_modules": ["reproq_django."],
    "django_settings_module": f"{SITE}queue_settings",
}
SINGLE = {"isolation": "exec", "exec": {"command": [sys.executable, "-m", "reproq_django.executor"]}}


@contextmanager
def running_site(database: Database, **pool: Any) -> Iterator[Daemon]:
    """Run the daemon for the project of the tests, ready."""
    daemon = Daemon(demo_config(database.dsn, pool=pool, app=APP), env={"DJANGO_SITE_DSN": database.dsn})
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def measure(cluster: Cluster, tasks: int, **pool: Any) -> float:
    """Return tasks/s over a backlog of *tasks*."""
    with fresh_database(cluster) as database, running_site(database, **pool):
        with database.connect() as connection:
            enqueue(connection, [NewRun(TASK, args=[number]) for number in range(tasks)])
            connection.commit()
            began = time.time()
        eventually(
            lambda: database.query("SELECT count(*) FROM task_lane") == [(0,)], timeout=600, interval=0.1, what="the backlog is worked off"
        )
        ((finished, good),) = database.query(
            "SELECT extract(epoch FROM max(finished_at))::float8, count(*) FILTER (WHERE status = 'SUCCESSFUL') FROM task_runs"
        )
        assert good == tasks
        return float(tasks / (finished - began))


def main() -> None:
    """Measure both, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000, help="for warm executors")
    parser.add_argument("--single", type=int, default=40, help="with an interpreter for each")
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        single = measure(cluster, arguments.single, executors=arguments.executors, **SINGLE)
        warm = measure(cluster, arguments.tasks, executors=arguments.executors)
    result = {"machine": machine, "single_per_s": single, "warm_per_s": warm, "ratio": warm / single}
    remember({"benchmark": "django", **result})
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{machine}; {arguments.executors} executors; no-op tasks of Django")
    print(f"one interpreter for each  {single:10.1f}/s")
    print(f"warm executors            {warm:10.1f}/s   {warm / single:.0f} times as many")


if __name__ == "__main__":
    main()
