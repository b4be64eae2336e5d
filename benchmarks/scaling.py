"""A pool that finds its size, on the real thing: a step and a burst of sleeping and of computing tasks, as plots.

    python -m benchmarks.scaling [--out scaling] [--most 8] [--json]

Each scenario runs a daemon with `executors: {min: 1, max: MOST}`. A producer enqueues at the scenario's rate; five times a second the
size, what runs and what waits are noted. The table says how soon after the change the size moved and where it ended, and how long tasks
waited; one SVG for each scenario shows the whole course.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl

from benchmarks.stage import describe_machine, durable_server, fresh_database, percentile, running_daemon
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

mpl.use("svg")
from matplotlib import pyplot as plt

DRAIN_TARGET = "2s"
SAMPLE_S = 0.2
PRODUCE_S = 0.1


@dataclass(frozen=True)
class Scenario:
    """What arrives: tasks a second at each second of the run, and many at once at its change."""

    name: str
    task: str
    seconds_each: float
    rate: Callable[[float], float]
    burst: int = 0
    change_s: float = 8.0
    seconds: float = 30.0


SCENARIOS = (
    Scenario("step of sleeping tasks", "nap", 0.2, lambda t: 2.0 if t < 8 else 20.0),
    Scenario("burst of sleeping tasks", "nap", 0.1, lambda _: 1.0, burst=300),
    Scenario("step of computing tasks", "burn", 0.05, lambda t: 2.0 if t < 8 else 20.0),
    Scenario("burst of computing tasks", "burn", 0.05, lambda _: 1.0, burst=300),
)


@dataclass
class Course:
    """What was seen: seconds since the start, executors, runs under way, runs that wait."""

    at: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)


def run(cluster: Cluster, scenario: Scenario, most: int) -> tuple[Course, dict[str, float]]:
    """Let the scenario happen to a real daemon."""
    pool = {"executors": {"min": 1, "max": most}, "drain_target": DRAIN_TARGET}
    with fresh_database(cluster) as database, running_daemon(database, **pool) as daemon:
        course, stopped = Course(), threading.Event()
        began = time.monotonic()
        producer = threading.Thread(target=_produce, args=(database, scenario, began))
        watcher = threading.Thread(target=_watch, args=(database, daemon, course, began, stopped))
        producer.start()
        watcher.start()
        producer.join()
        eventually(lambda: database.query("SELECT count(*) FROM task_lane") == [(0,)], timeout=300, interval=0.2, what="all tasks have run")
        stopped.set()
        watcher.join()
        waits = [
            wait
            for (wait,) in database.query("SELECT extract(epoch FROM started_at - greatest(run_after, enqueued_at))::float8 FROM task_runs")
        ]
    largest, later = max(course.size), [(at, size) for at, size in zip(course.at, course.size, strict=True) if at > scenario.change_s]
    figures = {
        "largest": float(largest),
        "first_larger_s": next((at for at, size in later if size > course.size[0]), scenario.seconds) - scenario.change_s,
        "largest_after_s": next((at for at, size in later if size == largest), scenario.seconds) - scenario.change_s,
        "wait_p50_s": percentile(waits, 0.5),
        "wait_p95_s": percentile(waits, 0.95),
        "changes": float(sum(a != b for a, b in zip(course.size, course.size[1:], strict=False))),
    }
    return course, figures


def _produce(database: Database, scenario: Scenario, began: float) -> None:
    """Enqueue what the rate asks for, and the burst at its time."""
    new = NewRun(f"workers.demo.tasks.{scenario.task}", args=[scenario.seconds_each])
    owed, burst = 0.0, scenario.burst
    with database.connect(autocommit=True) as connection:
        while (now := time.monotonic() - began) < scenario.seconds:
            owed += scenario.rate(now) * PRODUCE_S
            count, owed = int(owed), owed % 1
            if burst and now >= scenario.change_s:
                count, burst = count + burst, 0
            if count:
                enqueue(connection, [new] * count)
            time.sleep(PRODUCE_S)


def _watch(database: Database, daemon: Daemon, course: Course, began: float, stopped: threading.Event) -> None:
    with database.connect(autocommit=True) as connection:
        while not stopped.wait(SAMPLE_S):
            counts = dict(connection.execute("SELECT state, count(*) FROM task_lane GROUP BY state").fetchall())
            course.at.append(time.monotonic() - began)
            course.size.append(len(daemon.pids("executor")))
            course.running.append(int(counts.get("running", 0)))
            course.waiting.append(int(counts.get("ready", 0)))


def draw(scenario: Scenario, course: Course, path: Path) -> None:
    """Write the course as an SVG: sizes on the left, what waits on the right."""
    figure, sizes = plt.subplots(figsize=(9, 4))
    sizes.step(course.at, course.size, where="post", color="tab:blue", label="executors")
    sizes.plot(course.at, course.running, color="tab:green", linewidth=0.8, label="claimed")
    sizes.set_xlabel("seconds")
    sizes.set_ylabel("executors, claimed runs")
    waiting = sizes.twinx()
    waiting.fill_between(course.at, course.waiting, color="tab:orange", alpha=0.25, label="waiting")
    waiting.set_ylabel("waiting runs")
    sizes.set_title(scenario.name)
    figure.legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("scaling"), help="folder for the plots")
    parser.add_argument("--most", type=int, default=8, help="executors at most")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        results = {}
        for scenario in SCENARIOS:
            course, figures = run(cluster, scenario, options.most)
            draw(scenario, course, options.out / f"{scenario.name.replace(' ', '-')}.svg")
            results[scenario.name] = figures
            if not options.json:
                first, last, p50, p95 = (figures[key] for key in ("first_larger_s", "largest_after_s", "wait_p50_s", "wait_p95_s"))
                print(
                    f"{scenario.name:<26} largest {figures['largest']:.0f} of {options.most}, first step {first:.1f} s and largest"
                    f" {last:.1f} s after the change; waits p50 {p50:.2f} s, p95 {p95:.2f} s",
                    flush=True,
                )
    print(json.dumps({"machine": machine, "scenarios": results}) if options.json else f"{machine}; plots in {options.out}/")


if __name__ == "__main__":
    main()
