"""How long after an accident work goes on: median and p99 of 20 runs each.

    python -m benchmarks.recovery [--runs 20] [--json]

* executor: from its kill -9 to the start of the next execution of its task;
* shard: from its kill -9 to the start of the next execution of a task it held (lease: ten minutes, so by release alone);
* supervisor: from its kill -9 until no process of the daemon is alive, escaped grandchildren included;
* drain: from TERM, with eight tasks of 2 s running and a backlog, to the exit of the daemon.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.stage import describe_machine, durable_server, fresh_database, running_daemon, spread
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database
from tests.support.trail import Execution, read_trail

LIMITS_S = {"executor": 1.0, "shard": 3.0, "supervisor": 2.0, "drain": 10.0}
"""What is promised, in seconds."""


def again_after_death(cluster: Cluster, kind: str) -> float:
    """Kill the process of *kind* under a running task; return the seconds until that task runs again."""
    with fresh_database(cluster) as database, running_daemon(database, executors=2, lease="600s") as daemon, _trail() as trail:
        _leave_trails(database, trail, 2, seconds=5.0)
        eventually(lambda: len(read_trail(trail)) == 2, interval=0.01, what="both tasks run")
        victim = daemon.pids(kind)[0]
        killed_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.kill(victim, signal.SIGKILL)
        again = eventually(lambda: _second(trail), timeout=30, interval=0.005, what="a task runs again")
        return again.start - killed_at


def until_all_are_gone(cluster: Cluster) -> float:
    """Kill the supervisor of a daemon whose tasks left grandchildren behind; return the seconds until nothing is alive."""
    with fresh_database(cluster) as database, running_daemon(database, executors=2) as daemon:
        with database.connect(autocommit=True) as connection:
            enqueue(connection, [NewRun("workers.demo.tasks.leave_grandchild"), NewRun("workers.demo.tasks.nap", args=[60])])
        eventually(lambda: daemon.pids("other"), what="a grandchild runs")
        began = time.monotonic()
        daemon.signal(signal.SIGKILL)
        daemon.wait_exit()
        eventually(lambda: not daemon.processes(), timeout=30, interval=0.005, what="nothing is alive")
        return time.monotonic() - began


def until_drained(cluster: Cluster) -> float:
    """Stop a busy daemon; return the seconds until it has ended with exit code 0."""
    with fresh_database(cluster) as database, running_daemon(database, executors=8) as daemon:
        with database.connect(autocommit=True) as connection:
            enqueue(connection, [NewRun("workers.demo.tasks.nap", args=[2.0]) for _ in range(400)])
        running = "SELECT count(*) FROM task_runs WHERE status = 'RUNNING'"
        eventually(lambda: database.query(running) == [(8,)], what="eight tasks run")
        began = time.monotonic()
        code = daemon.stop()
        seconds = time.monotonic() - began
        assert code == 0, f"expected exit code 0, got {code}"
        assert database.query("SELECT count(*) FROM task_lane WHERE state = 'running' OR attempts > 0") == [(0,)]
        return seconds


def _second(trail: Path) -> Execution | None:
    seconds = [runs[1] for runs in read_trail(trail).values() if len(runs) > 1]
    return min(seconds, key=lambda run: run.start) if seconds else None


def _leave_trails(database: Database, trail: Path, count: int, seconds: float) -> None:
    with database.connect(autocommit=True) as connection:
        args = [[str(trail), f"t{n}", seconds] for n in range(count)]
        enqueue(connection, [NewRun("workers.demo.tasks.leave_trail", args=each) for each in args])


class _trail:
    """An empty trail file that is removed at the end."""

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(prefix="reproq-trail-")
        os.close(handle)
        self._path = Path(name)
        return self._path

    def __exit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        measures: dict[str, Callable[[], float]] = {
            "executor": lambda: again_after_death(cluster, "executor"),
            "shard": lambda: again_after_death(cluster, "shard"),
            "supervisor": lambda: until_all_are_gone(cluster),
            "drain": lambda: until_drained(cluster),
        }
        figures = {}
        for name, measure in measures.items():
            figures[name] = spread([measure() for _ in range(options.runs)])
            if not options.json:
                print(
                    f"{name:<12} median {figures[name]['median']:.3f} s   p99 {figures[name]['p99']:.3f} s"
                    f"   max {figures[name]['max']:.3f} s   promised {LIMITS_S[name]:g} s",
                    flush=True,
                )
    if options.json:
        print(json.dumps({"machine": machine, "seconds": figures, "promised": LIMITS_S}))
    else:
        print(f"{machine}; {options.runs} runs each")


if __name__ == "__main__":
    main()
