"""How late a delayed task starts on an idle pool: median and p99 of 20 runs each, and what waiting for it costs.

    python -m benchmarks.wake [--runs 20] [--json]

* known: due in a second, so the keeper has seen it before and wakes at its time;
* sudden: due in 30 ms, sooner than the keeper next looks by itself;
* idle: processor time of keeper and its server process while nothing is due, in percent of one core.

The shards poll once in ten minutes: nothing here starts because of that.
"""

import argparse
import json
import random
import time

import psutil

from benchmarks.stage import describe_machine, durable_server, fresh_database, running_daemon, spread
from reproq_supervisor.store.commands import result
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon
from tests.support.eventually import eventually
from tests.support.postgres import Database

DELAYS_S = {"known": 1.0, "sudden": 0.03}
PROMISED_S = 0.1
IDLE_S = 10.0
_BACKEND = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reproq keeper'"


def lateness_s(database: Database, delay_s: float) -> float:
    """Return the seconds from when a task was due to its start, by the database's clock."""
    with database.connect(autocommit=True) as connection:
        (run,) = enqueue(connection, [NewRun("workers.demo.tasks.noop", delay_s=delay_s)])

        def started() -> float | None:
            view = result(connection, run)
            return (view.started_at - view.due_at).total_seconds() if view and view.finished_at and view.started_at else None

        found = eventually(started, timeout=30, interval=0.01, what="the task has ended")
        assert found is not None
        return found


def idle_share(database: Database, daemon: Daemon) -> float:
    """Return the share of a core that keeper and its server process take while there is nothing to do."""
    (keeper,) = daemon.pids("keeper")
    processes = [psutil.Process(keeper), *(psutil.Process(pid) for (pid,) in database.query(_BACKEND))]

    def used_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before, began = used_s(), time.monotonic()
    time.sleep(IDLE_S)
    return (used_s() - before) / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    poll = {"min": "600s", "max": "600s"}
    with durable_server() as cluster, fresh_database(cluster) as database, running_daemon(database, poll=poll) as daemon:
        lateness_s(database, 0.0)
        figures = {}
        for name, delay_s in DELAYS_S.items():
            late = []
            for _ in range(options.runs):
                time.sleep(random.uniform(0, 0.1))  # at any moment of the keeper's own rhythm
                late.append(lateness_s(database, delay_s))
            figures[name] = spread(late)
        idle = idle_share(database, daemon)
        machine = describe_machine(cluster)
    if options.json:
        print(json.dumps({"machine": machine, "late_s": figures, "promised_s": PROMISED_S, "idle_share": idle}))
        return
    for name, figure in figures.items():
        spreads = "   ".join(f"{word} {figure[key] * 1000:.1f} ms" for word, key in (("median", "median"), ("p99", "p99"), ("max", "max")))
        print(f"{name:<8} {spreads}   promised {PROMISED_S * 1000:g} ms")
    print(f"idle     {idle * 100:.2f} % of a core")
    print(f"{machine}; {options.runs} runs each")


if __name__ == "__main__":
    main()
