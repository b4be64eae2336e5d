"""Kill, freeze and reload at random while tasks run; then check that every task ended once, as the tasks themselves recorded it.

    python -m benchmarks.soak [--minutes 5] [--seed N] [--modes process thread async]

Every reload draws one of the modes for the pool's executors. The seed is printed first: the same seed makes the same accidents in the
same order (their timing against the work differs).
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from reproq_supervisor.store.enqueue import NewRun, enqueue
from reproq_supervisor.store.migrate import migrate
from tests.support.daemon import Daemon, demo_config
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database, running_cluster
from tests.support.trail import assert_all_ended_once

KINDS = ("executor", "executor", "executor", "nursery", "shard", "keeper")
TASK_S = 0.05
BATCH = 200
MOST_WAITING = 1000
# Executors are also replaced without any accident, all the while.
MODES: dict[str, dict[str, object]] = {
    "process": {"mode": "process", "slots": 1},
    "thread": {"mode": "thread", "slots": 4},
    "async": {"mode": "async", "slots": 4},
}
POOL = {"lease": "15s", "recycle": {"tasks": 40, "age": "10s", "jitter": "50%"}}


class Soak:
    """One daemon, one server, and a stream of accidents."""

    def __init__(self, daemon: Daemon, cluster: Cluster, database: Database, trail: Path, rng: random.Random, modes: Sequence[str]) -> None:
        self._daemon = daemon
        self._cluster = cluster
        self._database = database
        self._trail = trail
        self._rng = rng
        self._modes = modes
        self.enqueued = 0
        self.accidents: dict[str, int] = {}

    def run(self, until_mono: float) -> None:
        """Have accidents until the time is over, with enough work waiting all the while."""
        choices = [self._kill, self._kill, self._kill_two, self._freeze, self._reload, self._reload_badly, self._outage]
        while time.monotonic() < until_mono:
            self._keep_busy()
            accident = self._rng.choice(choices)
            name = accident.__name__.strip("_")
            self.accidents[name] = self.accidents.get(name, 0) + 1
            accident()
            time.sleep(self._rng.uniform(0.2, 2.0))

    def finish(self) -> None:
        """Wait until all is done, and check what the tasks recorded."""
        done = "SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'"
        eventually(lambda: self._database.query(done) == [(self.enqueued,)], timeout=300, interval=0.2, what="all tasks are done")
        executions = assert_all_ended_once(self._database, self._trail, self.enqueued)
        repeated = sum(len(runs) - 1 for runs in executions.values())
        print(f"{self.enqueued} tasks ended once; {repeated} executions more than tasks; accidents: {self.accidents}")

    def _keep_busy(self) -> None:
        ((waiting,),) = self._database.query("SELECT count(*) FROM task_lane")
        if waiting < MOST_WAITING:
            names = range(self.enqueued, self.enqueued + BATCH)
            tasks = ("workers.demo.tasks.leave_trail", "workers.demo.tasks.leave_trail_in_coroutine")
            runs = [NewRun(tasks[n % 2], args=[str(self._trail), f"t{n}", TASK_S], max_attempts=1000) for n in names]
            with self._database.connect(autocommit=True) as connection:
                enqueue(connection, runs)
            self.enqueued += BATCH

    def _signal(self, kind: str, signum: signal.Signals) -> int | None:
        pids = self._daemon.pids(kind)
        if not pids:
            return None
        pid = self._rng.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
        return pid

    def _kill(self) -> None:
        self._signal(self._rng.choice(KINDS), signal.SIGKILL)

    def _kill_two(self) -> None:
        for kind in self._rng.sample(KINDS, 2):
            self._signal(kind, signal.SIGKILL)

    def _freeze(self) -> None:
        self._signal(self._rng.choice(KINDS), signal.SIGSTOP)

    def _reload(self) -> None:
        mode = MODES[self._rng.choice(self._modes)]
        self._configure({"executors": self._rng.randint(2, 5), "env": {"RELEASE": str(self._rng.randint(1, 3))}, **mode})
        self._daemon.command("reload")

    def _reload_badly(self) -> None:
        self._daemon.config_path.write_text("pools: [")
        assert self._daemon.command("reload").returncode != 0

    def _configure(self, pool: dict[str, object]) -> None:
        self._daemon.configure(demo_config(self._database.dsn, pool={**POOL, **pool}))

    def _outage(self) -> None:
        self._cluster.kill()
        time.sleep(self._rng.uniform(0.0, 3.0))
        self._cluster.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster())
        database = stack.enter_context(cluster.new_database())
        with database.connect(autocommit=True) as connection:
            migrate(connection)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reproq-soak-")))
        (folder / "trail").touch()
        daemon = Daemon(demo_config(database.dsn, pool={**POOL, "executors": 4, **MODES[options.modes[0]]}))
        stack.callback(daemon.close)
        daemon.start()
        soak = Soak(daemon, cluster, database, folder / "trail", random.Random(options.seed), options.modes)
        try:
            soak.run(time.monotonic() + options.minutes * 60)
            soak.finish()
        except BaseException:
            sys.stderr.write(daemon.log[-20000:])
            raise


if __name__ == "__main__":
    main()
