"""The context of a task in every mode and isolation, with a real shard between the task and its record."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.client import Client, NewRun, Progress, TaskResult
from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store.migrate import migrate
from tests.support.context_tasks import (
    count_attempts,
    die_after_a_note,
    flood,
    wait_for_cancel,
    who,
    who_later,
    work_until,
    work_until_later,
)
from tests.support.eventually import eventually
from tests.support.postgres import Cluster
from tests.support.runs import Runs
from tests.support.shard import EXEC, RunningShard, running_shard

HANG_S = 60.0
APP = {"preload": ["tests.support.context_tasks"], "allowed_task_modules": ["tests.support.context_tasks."]}
KINDS: dict[str, dict[str, Any]] = {
    "process": {"executors": 2},
    "thread": {"mode": "thread", "slots": 3},
    "async": {"mode": "async", "slots": 3},
    "fork": {"isolation": "fork", "executors": 2},
    "exec": {"isolation": "exec", "exec": EXEC, "executors": 2},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pool(kind: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningShard, Runs, Client]]:
    """A shard that all tests of a kind share."""
    folder = tmp_path_factory.mktemp(kind)
    with (
        cluster.new_database(cluster.ensure_template(migrate)) as database,
        running_shard(database, **KINDS[kind], app=APP, logs_dir=folder / "logs", log=folder / "shard.log") as shard,
        Client(database.dsn) as client,
    ):
        yield shard, Runs(database), client


@pytest.fixture
def client(pool: tuple[RunningShard, Runs, Client]) -> Client:
    return pool[2]


@pytest.fixture
def runs(pool: tuple[RunningShard, Runs, Client]) -> Runs:
    return pool[1]


def ended(client: Client, runs: Runs, run: NewRun) -> TaskResult:
    id_ = client.enqueue(run)
    runs.ended([id_], HANG_S)
    return client.result(id_)


def shown(client: Client, id_: RunId, expected: Progress) -> None:
    def progress() -> bool:
        assert client.result(id_).progress == expected
        return True

    eventually(progress, timeout=HANG_S, what=f"run {id_} shows {expected}", interval=0.05)


@pytest.mark.parametrize("task", [who, who_later])
def test_a_task_knows_its_run(client: Client, runs: Runs, kind: str, task: Any) -> None:
    result = ended(client, runs, task.call())
    knows_limit = kind != "exec"  # the protocol does not tell it
    assert result.get() == [str(result.id), 1, "default", knows_limit, knows_limit]


def test_a_retry_finds_what_was_noted(client: Client, runs: Runs, kind: str) -> None:
    result = ended(client, runs, count_attempts.call())
    kept = {"attempts": [1, 2, 3] if kind != "exec" else [3]}
    assert result.get() == kept
    assert result.metadata == (kept if kind != "exec" else {})


@pytest.mark.parametrize("task", [work_until, work_until_later])
def test_progress_shows_while_the_task_runs_and_the_last_of_it_stays(
    client: Client, runs: Runs, kind: str, task: Any, tmp_path: Path
) -> None:
    if kind == "exec":
        pytest.skip("the executor protocol has no place for it")
    go = tmp_path / "go"
    id_ = client.enqueue(task.call(str(go)))
    shown(client, id_, Progress(3, 4, "step 3"))
    assert client.result(id_).status is RunStatus.RUNNING
    go.touch()
    runs.ended([id_], HANG_S)
    result = client.result(id_)
    assert (result.get(), result.progress) == ("done", Progress(4, 4))


def test_the_last_words_before_a_crash_are_kept(client: Client, runs: Runs, kind: str) -> None:
    if kind == "exec":
        pytest.skip("the executor protocol has no place for them")
    result = ended(client, runs, die_after_a_note.using(max_attempts=1).call())
    assert (result.status, result.errors[-1]["kind"], result.metadata) == (RunStatus.FAILED, "worker_crashed", {"last_words": 1})


def test_a_flood_of_notes_from_threads_harms_nobody(client: Client, runs: Runs, kind: str) -> None:
    result = ended(client, runs, flood.call(300))
    assert result.get() == 300
    assert result.metadata == ({"0": 299, "1": 299, "2": 299} if kind != "exec" else {})


def test_a_cancelled_task_can_tell_that_it_was(client: Client, runs: Runs, kind: str) -> None:
    if kind == "exec":
        pytest.skip("a program is not told why it is asked to stop")
    id_ = client.enqueue(wait_for_cancel.call())
    shown(client, id_, Progress(0, 1))
    client.cancel(id_)
    runs.ended([id_], HANG_S)
    result = client.result(id_)
    assert (result.status, result.metadata["was_cancelled"]) == (RunStatus.CANCELLED, True)


def test_what_somebody_has_locked_is_noted_when_it_is_free(client: Client, runs: Runs, kind: str, tmp_path: Path) -> None:
    if kind != "process":
        pytest.skip("once is enough: it is the shard that waits")
    go = tmp_path / "go"
    id_ = client.enqueue(work_until.call(str(go)))
    shown(client, id_, Progress(3, 4, "step 3"))
    with runs.database.connect(autocommit=False) as connection:
        connection.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", [id_])
        go.touch()
        others = [ended(client, runs, who.call()).status for _ in range(2)]
        assert client.result(id_).status is RunStatus.RUNNING
    assert others == [RunStatus.SUCCESSFUL] * 2
    runs.ended([id_], HANG_S)
    assert client.result(id_).progress == Progress(4, 4)
