"""`manage.py reproq worker`: becomes the supervisor of the project's queues, by flags, by settings, or by a file."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.daemon import CHECKOUT, Daemon
from tests.support.eventually import eventually
from tests.support.postgres import Database

pytest.importorskip("django")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PASSWORD = "hunter2"
TASK = "tests.support.django_site.office.tasks.process_and_settings"
SETTINGS = """
from tests.support.django_site.queue_settings import *

DATABASES["default"]["PASSWORD"] = "{password}"
REPROQ = {reproq!r}
INSTALLED_APPS = [*INSTALLED_APPS, "tests.support.django_site.office"]
TASKS["default"]["QUEUES"] = ["default", "mail"]
"""


class Worker(Daemon):
    """A daemon that a project's `manage.py` starts; its settings are a file in its folder."""

    def __init__(self, database: Database, reproq: dict[str, Any]) -> None:
        env = {"DJANGO_SITE_DSN": database.dsn, "DJANGO_SETTINGS_MODULE": "project_settings"}
        super().__init__({}, env=env)
        self.config_path.unlink()
        self._env |= {"TMPDIR": str(self.folder), "PYTHONPATH": f"{self.folder}:{CHECKOUT}"}
        self.write(reproq)

    def write(self, reproq: dict[str, Any]) -> None:
        """Write the project's settings."""
        (self.folder / "project_settings.py").write_text(SETTINGS.format(password=PASSWORD, reproq=reproq))

    def _program(self, command: str, *arguments: str) -> list[str]:
        program = super()._program(command, *arguments)
        if command == "run":
            return [program[0], "-m", "django", "reproq", "worker", *arguments]
        return [word for word in program if word not in ("-c", str(self.config_path))]


Start = Callable[..., Worker]


@pytest.fixture
def start_worker(database: Database) -> Iterator[Start]:
    """Start workers: ``start_worker(*flags, reproq=..., files=...)``. They are ended after the test, and must leave no process."""
    with ExitStack() as stack:

        def start(*flags: str, reproq: dict[str, Any] | None = None, files: dict[str, str] | None = None) -> Worker:
            worker = Worker(database, reproq or {})
            stack.callback(worker.close)
            for name, text in (files or {}).items():
                (worker.folder / name).write_text(text)
            worker.start(*flags)
            return worker

        yield start


def results(database: Database, *queues: str) -> list[Any]:
    """Enqueue a task into each queue, wait until they have ended, and return what they returned."""
    with database.connect(autocommit=True) as connection:
        numbers = list(enqueue(connection, [NewRun(TASK, queue_name=queue) for queue in queues]))
    wanted = "SELECT status, return_json, errors_json FROM task_runs WHERE result_id = ANY(%s) ORDER BY result_id"

    def ended() -> list[Any]:
        rows = database.query(wanted, numbers)
        if "FAILED" in [status for status, _, _ in rows]:
            raise RuntimeError(f"a task failed: {rows}")
        return [result for status, result, _ in rows] if {status for status, _, _ in rows} == {"SUCCESSFUL"} else []

    found: list[Any] = eventually(ended, timeout=90, what="all tasks succeed")
    return found


def test_flags_make_one_pool_over_the_project_s_queues_and_show_no_password(start_worker: Start, database: Database) -> None:
    worker = start_worker("--concurrency", "1", "--worker-id", "shop")
    found = results(database, "default", "mail")
    assert {module for _, module in found} == {"project_settings"}
    assert {process for process, _ in found} <= set(worker.pids("executor"))
    supervisor = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
    assert b"reproq: supervisor" in supervisor or b"reproq_supervisor.supervisor" in supervisor, "the same pid is the supervisor"
    for pid in worker.processes():
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), (pid, name)
    assert PASSWORD not in worker.log
    assert list(worker.answer("status")["pools"]) == ["worker"], "commands find it without a file"
    ((worker_ids,),) = database.query("SELECT DISTINCT worker_ids FROM task_runs")
    assert all(each.startswith("shop-") for each in worker_ids)
    assert worker.answer("reload")["plan"] == [], "a reload comes to the same settings, without Django"
    assert worker.stop() == 0
    worker.wait_gone()
    assert not list(worker.folder.glob("reproq-worker-*")), "its folder went with it"


def test_pools_come_from_the_settings(start_worker: Start, database: Database) -> None:
    reproq = {
        "pools": {"mail": {"queues": ["mail"], "executors": 1}, "rest": {"queues": ["default"], "executors": 1}},
        "shutdown_timeout": "10s",
        "keeper": {"beat_interval": "2s"},
    }
    worker = start_worker(reproq=reproq)
    (mail, _), (rest, _) = results(database, "mail", "default")
    assert mail != rest
    status = worker.answer("status")
    assert sorted(status["pools"]) == ["mail", "rest"]
    assert worker.answer("reload")["plan"] == []


@pytest.mark.parametrize(
    ("name", "text", "pool"),
    [
        ("reproq.yaml", "worker: {concurrency: 1, queues: [default], allowed_task_modules: [tests.support.]}\n", "worker"),
        ("supervisor.yaml", "pools: {own: {queues: [default], executors: 1}}\n", "own"),
    ],
)
def test_a_file_that_is_there_needs_no_database_in_it(start_worker: Start, database: Database, name: str, text: str, pool: str) -> None:
    worker = start_worker(files={name: text})
    results(database, "default")
    done = worker.command("status", f"--config={name}", "--json")
    assert done.returncode == 0 and f'"{pool}"' in done.stdout


def test_what_is_wrong_with_the_settings_is_said_with_its_key(database: Database) -> None:
    worker = Worker(database, {"pools": {"mail": {"queues": ["mail"], "executors": "many"}}})
    try:
        worker.start(until_ready=False)
        assert worker.wait_exit() == 1
        assert "pools.mail.executors" in worker.log
        assert not any(os.path.isdir(path) for path in worker.folder.glob("reproq-worker-*"))
    finally:
        worker.close()
