"""Kill, freeze, scale and reload at random while tasks run; then check that every task ended once, as the tasks themselves recorded it.

    python -m benchmarks.soak [--minutes 5] [--seed N]

Five pools share the work: warm executors, threads, loops, a fork for each task, a program for each task. Some tasks share a lock or a
concurrency limit over all pools. After every accident the database is checked: whatever has not ended is in the lane, and nothing else,
no key is held by more runs than it admits, and tasks go on ending. The seed is printed first: the same seed makes the same accidents in
the same order (their timing against the work differs).
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.migrate import migrate
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database, running_cluster
from tests.support.trail import Execution, assert_all_ended_once

KINDS = ("executor", "executor", "executor", "nursery", "shard", "keeper")
TASK_S = 0.05
BATCH = 200
MOST_WAITING = 600
GOES_ON_WITHIN_S = 120.0
LOCKS, LIMITS, LIMIT = 5, 3, 3
# A stopped program is what its task does, as far as anybody can tell: only the time limit ends it.
COMMON = {"timeout": "20s", "lease": "15s", "grace": "1s", "heartbeat": "1s", "poll": {"min": "250ms", "max": "1s"}}
# Executors are also replaced without any accident, all the while.
RECYCLE = {"recycle": {"tasks": 40, "age": "10s", "jitter": "50%"}}
POOLS: dict[str, dict[str, Any]] = {
    "warm": {"queues": {"warm": 1}, "executors": 3, "shards": 2, **RECYCLE},
    "threads": {"queues": {"threads": 1}, "executors": 1, "mode": "thread", "slots": 4, **RECYCLE},
    "loops": {"queues": {"loops": 1}, "executors": 1, "mode": "async", "slots": 4, **RECYCLE},
    "forks": {"queues": {"forks": 1}, "executors": 2, "isolation": "fork"},
    "programs": {"queues": {"programs": 1}, "executors": 1, "isolation": "exec"},
}
# A program for each task costs a fifth of a second of a processor.
QUEUES = ("warm",) * 6 + ("threads",) * 5 + ("loops",) * 5 + ("forks",) * 3 + ("programs",)
# Every good reload draws one of them for the warm pool.
MODES: tuple[dict[str, Any], ...] = ({}, {"mode": "thread", "slots": 4}, {"mode": "async", "slots": 4})
OVER_LIMIT = """
SELECT name, count(*) FROM (
    SELECT lock_name AS name, 1 AS size FROM task_lane WHERE state = 'running' AND lock_name IS NOT NULL
    UNION ALL SELECT limit_name, limit_size FROM task_lane WHERE state = 'running' AND limit_name IS NOT NULL) held
GROUP BY name HAVING count(*) > max(size)
"""


class Soak:
    """One daemon, one server, and a stream of accidents."""

    def __init__(self, daemon: Daemon, cluster: Cluster, database: Database, trail: Path, rng: random.Random) -> None:
        self._daemon = daemon
        self._cluster = cluster
        self._database = database
        self._trail = trail
        self._rng = rng
        self._keys: dict[str, str] = {}
        self.enqueued = 0
        self.accidents: Counter[str] = Counter()
        self.sizes: list[tuple[int, float]] = []

    def run(self, until_mono: float) -> None:
        """Have accidents until the time is over, with enough work waiting all the while."""
        choices: list[Callable[[], None]] = [self._kill] * 3 + [self._kill_two] * 2 + [self._freeze] * 2 + [self._outage] * 2
        choices += [self._reload, self._reload_badly, self._scale, self._restart_pool, self._pause, self._restart, self._kill_supervisor]
        while time.monotonic() < until_mono:
            self._keep_busy()
            accident = self._rng.choice(choices)
            self.accidents[accident.__name__.strip("_")] += 1
            accident()
            time.sleep(self._rng.uniform(0.2, 2.0))
            self._check()

    def finish(self) -> None:
        """Wait until all is done, and check what the tasks recorded."""
        eventually(lambda: self._done() == self.enqueued, timeout=600, interval=0.2, what="all tasks are done")
        executions = assert_all_ended_once(self._database, self._trail, self.enqueued)
        by_key: dict[str, list[Execution]] = {}
        for name, key in self._keys.items():
            by_key.setdefault(key, []).extend(executions[name])
        most = {key: _most_at_once(runs) for key, runs in by_key.items()}
        too_many = {key: count for key, count in most.items() if count > (1 if key.startswith("l") else LIMIT)}
        assert not too_many, f"more at once than the key admits: {too_many}"
        repeated = sum(len(runs) - 1 for runs in executions.values())
        print(
            f"{self.enqueued} tasks ended once; {repeated} executions more than tasks; {len(self._keys)} of them with a key, none too many"
        )
        print(f"{self.accidents.total()} accidents: {dict(self.accidents.most_common())}")
        (fds, mib), (last_fds, last_mib) = self.sizes[0], self.sizes[-1]
        print(f"supervisor: {fds} descriptors and {mib:.0f} MiB after the first accident, {last_fds} and {last_mib:.0f} MiB after the last")

    def _check(self) -> None:
        self._keep_busy()
        before = self._done()
        faults = self._database.query("SELECT * FROM reproq_check_invariant(0)")
        assert not faults, f"lane and record differ: {faults[:5]}"
        over = self._database.query(OVER_LIMIT)
        assert not over, f"keys held by too many: {over}"
        eventually(lambda: self._done() > before, timeout=GOES_ON_WITHIN_S, interval=0.1, what=f"tasks go on ending ({self._waiting()})")
        supervisor = psutil.Process(self._daemon.pid)
        self.sizes.append((supervisor.num_fds(), supervisor.memory_info().rss / 2**20))

    def _waiting(self) -> list[tuple[Any, ...]]:
        return self._database.query("SELECT queue_name, state, park_reason, count(*) FROM task_lane GROUP BY 1, 2, 3 ORDER BY 1, 2")

    def _done(self) -> int:
        ((count,),) = self._database.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'")
        return int(count)

    def _keep_busy(self) -> None:
        ((waiting,),) = self._database.query("SELECT count(*) FROM task_lane")
        if waiting < MOST_WAITING:
            runs = [self._new_run(n) for n in range(self.enqueued, self.enqueued + BATCH)]
            with self._database.connect(autocommit=True) as connection:
                enqueue(connection, runs)
            self.enqueued += BATCH

    def _new_run(self, n: int) -> NewRun:
        name, queue, key = f"t{n}", self._rng.choice(QUEUES), ""
        task = "workers.demo.tasks.leave_trail" + ("_in_coroutine" if queue == "loops" else "")
        keys: dict[str, Any] = {}
        if (draw := self._rng.random()) < 0.1:
            key = f"lock {self._rng.randrange(LOCKS)}"
            keys = {"lock_key": key}
        elif draw < 0.2:
            key = f"account {self._rng.randrange(LIMITS)}"
            keys = {"concurrency_key": key, "concurrency_limit": LIMIT}
        if key:
            self._keys[name] = key
        return NewRun(task, args=[str(self._trail), name, TASK_S], queue_name=queue, max_attempts=1000, **keys)

    # -- accidents ----------------------------------------------------------------------------------------------------

    def _signal(self, kind: str, signum: signal.Signals) -> None:
        if pids := self._daemon.pids(kind):
            with suppress(ProcessLookupError):
                os.kill(self._rng.choice(pids), signum)

    def _kill(self) -> None:
        self._signal(self._rng.choice(KINDS), signal.SIGKILL)

    def _kill_two(self) -> None:
        for kind in self._rng.sample(KINDS, 2):
            self._signal(kind, signal.SIGKILL)

    def _freeze(self) -> None:
        self._signal(self._rng.choice(KINDS), signal.SIGSTOP)

    def _reload(self) -> None:
        pools = {name: {**pool, "env": {"RELEASE": str(self._rng.randint(1, 3))}} for name, pool in POOLS.items()}
        pools["warm"] |= {"executors": self._rng.randint(2, 5), **self._rng.choice(MODES)}
        self._daemon.configure(config(self._database.dsn, pools))
        self._daemon.command("reload", timeout=180)

    def _reload_badly(self) -> None:
        self._daemon.config_path.write_text("pools: [")
        assert self._daemon.command("reload", timeout=180).returncode != 0
        self._daemon.configure(config(self._database.dsn, POOLS))

    def _scale(self) -> None:
        self._daemon.command("scale", "warm", str(self._rng.randint(1, 6)), "--for", "5s")

    def _restart_pool(self) -> None:
        self._daemon.command("restart", self._rng.choice(list(POOLS)), timeout=180)

    def _pause(self) -> None:
        pool = self._rng.choice(list(POOLS))
        self._daemon.command("drain", pool)
        time.sleep(self._rng.uniform(0.1, 2.0))
        self._daemon.command("resume", pool)

    def _outage(self) -> None:
        self._cluster.kill()
        time.sleep(self._rng.uniform(0.0, 3.0))
        self._cluster.start()

    def _restart(self) -> None:
        code = self._daemon.stop()
        assert code == 0, f"the daemon stopped with exit code {code}"
        self._daemon.start()

    def _kill_supervisor(self) -> None:
        self._daemon.signal(signal.SIGKILL)
        self._daemon.wait_exit()
        self._daemon.wait_gone()
        self._daemon.start()


def config(dsn: str, pools: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {**demo_config(dsn), "pools": {name: {**COMMON, **pool} for name, pool in pools.items()}}


def _most_at_once(runs: list[Execution]) -> int:
    steps = sorted([(run.start, 1) for run in runs] + [(run.last, -1) for run in runs])
    now = most = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster())
        database = stack.enter_context(cluster.new_database())
        with database.connect(autocommit=True) as connection:
            migrate(connection)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reproq-soak-")))
        (folder / "trail").touch()
        daemon = Daemon(config(database.dsn, POOLS))
        stack.callback(daemon.close)
        daemon.start()
        soak = Soak(daemon, cluster, database, folder / "trail", random.Random(options.seed))
        stack.push(lambda kind, *_: print(daemon.log[-20000:], file=sys.stderr) if kind else None)
        soak.run(time.monotonic() + options.minutes * 60)
        soak.finish()


if __name__ == "__main__":
    main()
