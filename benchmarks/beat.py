"""How accurately schedules fire, what many of them cost while nothing is due, and how soon a keeper that is away is followed.

    python -m benchmarks.beat [--seconds 20] [--schedules 10000] [--takeovers 20] [--json]

A real keeper on a durable server. *accuracy*: a schedule every second; from its nominal time to the moment its run is entered, by the
database's clock. *many*: the processor that the keeper and its server process take with that many schedules of which a few a second are
due, beside the same keeper with none. *takeovers*: two keepers, of which the acting one is killed, frozen or told to leave that many times;
from the moment before that to the beginning of the next term, by the database's clock.
"""

import argparse
import json
import os
import signal
import time
from contextlib import ExitStack
from functools import partial

import psutil

from benchmarks.stage import describe_machine, durable_server, fresh_database, percentile
from tests.support.eventually import eventually
from tests.support.keepers import RunningKeeper, running_keeper
from tests.support.postgres import Cluster, Database

PROMISED_MS = 50.0
FOLLOWED_WITHIN_S = 5.0
WAYS = ("kill", "freeze", "leave")


def accuracy(cluster: Cluster, seconds: float) -> dict[str, float]:
    """Return milliseconds late of one schedule that fires every second."""
    with fresh_database(cluster) as database, running_keeper(database) as keeper:
        eventually(lambda: listened(keeper) and keeper.acts(), timeout=30, interval=0.0, what="it acts")
        database.query(
            """INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at)
               VALUES ('tick', '* * * * * *', 'app.task', date_trunc('second', now()) + interval '3 s')"""
        )
        work(keeper, seconds)
        rows = database.query("SELECT extract(epoch FROM fired_at - fire_at)::float8 * 1000 FROM reproq_firings ORDER BY fire_at")
    late_ms = [ms for (ms,) in rows]
    return {"median": percentile(late_ms, 0.5), "p99": percentile(late_ms, 0.99), "max": max(late_ms), "firings": len(late_ms)}


def processor_share(cluster: Cluster, seconds: float, schedules: int) -> float:
    """Return the share of one processor that keeper and server process take with that many hourly schedules, spread over the hour."""
    with fresh_database(cluster) as database:
        database.query(
            """INSERT INTO periodic_tasks (name, cron_expr, task_path, next_run_at)
               SELECT 's' || n, (n / 60 %% 60) || ' * * * * ' || (n %% 60), 'app.task', now() + (n %% 3600) * interval '1 s'
               FROM generate_series(1, %s) n""",
            schedules,
        )
        with running_keeper(database) as keeper:
            eventually(lambda: listened(keeper) and keeper.ran("beat") >= min(1, schedules), timeout=60, interval=0.0, what="it beats")
            processes = [psutil.Process(keeper.pid), *backends(cluster, database)]
            before = sum(used(process) for process in processes)
            began = time.perf_counter()
            work(keeper, seconds)
            return (sum(used(process) for process in processes) - before) / (time.perf_counter() - began)


def takeovers(cluster: Cluster, count: int, how: str) -> list[float]:
    """Return the seconds that each of so many takeovers took."""
    took = []
    with fresh_database(cluster) as database, ExitStack() as stack:
        keepers: list[RunningKeeper] = []
        for number in range(count):
            while len(keepers) < 2:
                keepers.append(stack.enter_context(running_keeper(database, f"{how}-{number}-{len(keepers)}")))
            eventually(lambda: one_acts(keepers), timeout=60, interval=0.0, what="one acts, and the other one knows")
            acting = next(keeper for keeper in keepers if keeper.acts())
            keepers.remove(acting)
            ((began, term_no),) = database.query("SELECT clock_timestamp(), term_no FROM reproq_keeper_term")
            if how == "leave":
                acting.tell(type="drain", timeout=1)
            else:
                os.kill(acting.pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            eventually(partial(is_followed, database, keepers, term_no), timeout=60, interval=0.0, what="the other one follows")
            took.append(database.query("SELECT extract(epoch FROM since - %s)::float8 FROM reproq_keeper_term", began)[0][0])
            os.kill(acting.pid, signal.SIGKILL)
    return took


def one_acts(keepers: list[RunningKeeper]) -> bool:
    for keeper in keepers:
        keeper.listen()
    return sum(keeper.acts() for keeper in keepers) == 1 and all(keeper.snapshot.get("term") for keeper in keepers)


def is_followed(database: Database, keepers: list[RunningKeeper], term_no: int) -> bool:
    for keeper in keepers:
        keeper.listen()
    return bool(database.query("SELECT term_no > %s FROM reproq_keeper_term", term_no)[0][0])


def backends(cluster: Cluster, database: Database) -> list[psutil.Process]:
    """Return the server processes of keepers."""
    pids = {pid for (pid,) in database.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'reproq keeper'")}
    return [process for process in cluster.processes() if process.pid in pids]


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def listened(keeper: RunningKeeper) -> bool:
    keeper.listen()
    return True


def work(keeper: RunningKeeper, seconds: float) -> None:
    """Take in what the keeper says for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        keeper.listen()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--takeovers", type=int, default=20, help="of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with durable_server() as cluster:
        machine = describe_machine(cluster)
        late = accuracy(cluster, options.seconds)
        none, many = (processor_share(cluster, options.seconds, count) for count in (0, options.schedules))
        took_s = {how: takeovers(cluster, options.takeovers, how) for how in WAYS}
    load = psutil.getloadavg()[0]
    followed = {how: {"median": percentile(each, 0.5), "p99": percentile(each, 0.99), "max": max(each)} for how, each in took_s.items()}
    if options.json:
        promised = {"late_ms": PROMISED_MS, "followed_s": FOLLOWED_WITHIN_S}
        found = {"late_ms": late, "processor": {"none": none, "many": many}, "followed_s": followed, "takeovers": options.takeovers}
        print(json.dumps({"machine": machine, "load": load, "promised": promised, **found}))
        return
    print(f"late        median {late['median']:.1f} ms   p99 {late['p99']:.1f} ms   max {late['max']:.1f} ms   promised {PROMISED_MS:g} ms")
    print(f"processor   without schedules {none:.1%}   with {options.schedules} {many:.1%} of one core")
    for how, each in followed.items():
        print(
            f"{how:<11} followed after {each['median']:.2f} s   p99 {each['p99']:.2f} s   max {each['max']:.2f} s   "
            f"of {options.takeovers}, promised {FOLLOWED_WITHIN_S:g} s"
        )
    print(f"{machine}; load {load:.1f}")


if __name__ == "__main__":
    main()
