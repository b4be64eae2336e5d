"""`worker`: the older worker's file, flags and environment, on a real database."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import Daemon
from tests.support.eventually import eventually
from tests.support.postgres import Database

PASSWORD = "hunter2"


class Worker(Daemon):
    """A daemon that is started by `worker`: its configuration is a reproq.yaml, its temporary files are in its folder."""

    def __init__(self, config: Mapping[str, Any], *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(config, env=env)
        self._env["TMPDIR"] = str(self.folder)

    def _program(self, command: str, *arguments: str) -> list[str]:
        return super()._program("worker" if command == "run" else command, *arguments)


Start = Callable[..., Worker]


@pytest.fixture
def start_worker() -> Iterator[Start]:
    """Start workers: ``start_worker(config, *flags, env=...)``. They are ended after the test, and must leave no process."""
    with ExitStack() as stack:

        def start(config: Mapping[str, Any], *flags: str, env: Mapping[str, str] | None = None) -> Worker:
            worker = Worker(config, env=env)
            stack.callback(worker.close)
            worker.start(*flags)
            return worker

        yield start


def contract(database: Database, **changes: Any) -> dict[str, Any]:
    worker = {"worker_id": "mailer", "queues": ["mail", "bulk"], "allowed_task_modules": ["workers.demo."], "concurrency": 2}
    return {"dsn": database.dsn, "worker": {**worker, "lease_seconds": 30, "poll_max_backoff": "500ms", **changes}}


def with_password(dsn: str) -> str:
    return dsn.replace("@/", f":{PASSWORD}@/")


def enqueued(database: Database, *runs: NewRun) -> list[int]:
    with database.connect(autocommit=True) as connection:
        return list(enqueue(connection, list(runs)))


def ended(database: Database, numbers: list[int]) -> list[Any]:
    rows = database.query("SELECT status, worker_ids FROM task_runs WHERE result_id = ANY(%s) ORDER BY result_id", numbers)
    return rows if all(status in ("SUCCESSFUL", "FAILED") for status, _ in rows) else []


def test_a_worker_of_the_contract_works_off_its_queues(start_worker: Start, database: Database) -> None:
    numbers = enqueued(
        database,
        *(NewRun("workers.demo.tasks.add", [number, 1], queue_name=("mail", "bulk")[number % 2]) for number in range(6)),
        NewRun("workers.demo.tasks.crash", queue_name="mail", max_attempts=1),
        NewRun("os.getpid", queue_name="mail", max_attempts=1),
    )
    worker = start_worker(contract(database))
    rows = eventually(lambda: ended(database, numbers), timeout=60, what="all tasks end")
    assert [status for status, _ in rows] == ["SUCCESSFUL"] * 6 + ["FAILED"] * 2
    assert all(each.startswith("mailer-") for _, workers in rows[:7] for each in workers)

    status = worker.answer("status")
    assert list(status["pools"]) == ["worker"], "commands find it by its file"
    worker.configure(contract(database, concurrency=3))
    reloaded = worker.answer("reload")
    assert {change["key"] for change in reloaded["plan"]} == {"pools.worker.executors.min", "pools.worker.executors.max"}
    worker.configure(contract(database, concurrency="many"))
    refused = worker.command("reload")
    assert refused.returncode == 78
    assert "worker.concurrency" in refused.stderr
    assert worker.stop() == 0
    worker.wait_gone()
    assert not list(worker.folder.glob("reproq-worker-*")), "its folder went with it"


def test_no_process_shows_the_password_of_a_flag(start_worker: Start, database: Database) -> None:
    flags = ("--dsn", database.dsn.replace("@/", f":{PASSWORD}@/"), "-allowed-task-modules=workers.demo.", "--concurrency", "1")
    one = start_worker({}, *flags, env={"WORKER_ID": "one", "QUEUE_NAMES": "mail"})
    (number,) = enqueued(database, NewRun("workers.demo.tasks.noop", queue_name="mail"))
    ((status, _),) = eventually(lambda: ended(database, [number]), timeout=60, what="the task ends")
    assert status == "SUCCESSFUL"
    for pid in one.processes():
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), (pid, name)
    assert PASSWORD not in one.log
    assert one.answer("stats"), "commands find the database that only a flag named"
