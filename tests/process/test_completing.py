"""Transactional completion: what a task wrote and its result are one commit, whatever dies, in every mode and isolation."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.client import Client, NewRun, TaskResult, chain, chord
from reproq_supervisor.core.runs import RunId, RunStatus
from reproq_supervisor.store.migrate import migrate
from tests.store.actors import assert_invariant
from tests.support.completing_tasks import die, go_wrong, look_for_secrets, swallow, write, write_later, write_when_told
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database
from tests.support.runs import Runs
from tests.support.shard import EXEC, RunningShard, running_shard

HANG_S = 60.0
APP = {"preload": ["tests.support.completing_tasks"], "allowed_task_modules": ["tests.support.completing_tasks."]}
KINDS: dict[str, dict[str, Any]] = {
    "process": {"executors": 2},
    "thread": {"mode": "thread", "slots": 3},
    "async": {"mode": "async", "slots": 3},
    "fork": {"isolation": "fork", "executors": 2},
}
DEATHS = ("before", "empty", "within", "after the block", "after the end, uncommitted", "after the commit")
MISTAKES = {
    "the block fails": "no",
    "it ends the transaction": "ended within the block",
    "it commits": "Explicit commit",
    "it asks twice": "expected one block",
    "the server ends the connection": "terminat",
    "the statement fails": "division by zero",
    "the task fails after it": "no",
    "the result is none": "expected JSON",
    "PostgreSQL takes no such result": "lone surrogate",
    "a constraint of the record refuses": "its end was refused",
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pool(kind: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningShard, Database, Client]]:
    """A shard that all tests of a kind share."""
    folder = tmp_path_factory.mktemp(kind)
    with (
        cluster.new_database(cluster.ensure_template(migrate)) as database,
        running_shard(database, **KINDS[kind], app=APP, logs_dir=folder / "logs", log=folder / "shard.log") as shard,
        Client(database.dsn) as client,
    ):
        make_effects(database)
        yield shard, database, client
        assert_invariant(database)
        assert "postgresql://" not in shard.log


def make_effects(database: Database) -> None:
    database.query("CREATE TABLE effects (run bigint NOT NULL, attempt int NOT NULL)")
    database.query("ALTER TABLE task_runs ADD CONSTRAINT no_forbidden CHECK (return_json <> '\"forbidden\"')")


@pytest.fixture
def client(pool: tuple[RunningShard, Database, Client]) -> Client:
    return pool[2]


@pytest.fixture
def database(pool: tuple[RunningShard, Database, Client]) -> Database:
    return pool[1]


def ended(client: Client, database: Database, run: NewRun) -> TaskResult:
    id_ = client.enqueue(run)
    Runs(database).ended([id_], HANG_S)
    return client.result(id_)


def effects(database: Database, run: RunId) -> list[int]:
    """Return the attempts of which something is left."""
    return [attempt for (attempt,) in database.query("SELECT attempt FROM effects WHERE run = %s", run)]


@pytest.mark.parametrize("task", [write, write_later])
def test_what_was_written_and_the_result_are_there_together(client: Client, database: Database, task: Any) -> None:
    result = ended(client, database, task.call({"moved": 3}))
    assert (result.status, result.get(), result.attempts, result.metadata) == (RunStatus.SUCCESSFUL, {"moved": 3}, 1, {"wrote": True})
    assert effects(database, result.id) == [1]
    assert result.started_at is not None

    def has_log() -> bool:
        uri = client.result(result.id).logs_uri
        return uri is not None and "some output" in Path(uri).read_text()

    eventually(has_log, timeout=HANG_S, what="the record says where the output went")


@pytest.mark.parametrize("where", DEATHS)
def test_effects_happen_once_wherever_an_attempt_dies(client: Client, database: Database, where: str) -> None:
    result = ended(client, database, die.call(where))
    assert (result.status, result.get()) == (RunStatus.SUCCESSFUL, where)
    survivor = 1 if where == "after the commit" else 2
    assert (effects(database, result.id), result.attempts) == ([survivor], survivor)


@pytest.mark.parametrize("how", MISTAKES)
def test_nothing_is_left_of_what_went_wrong(client: Client, database: Database, how: str) -> None:
    result = ended(client, database, go_wrong.using(max_attempts=1).call(how))
    assert result.status is RunStatus.FAILED
    assert MISTAKES[how] in result.errors[-1]["message"]
    assert effects(database, result.id) == []


def test_a_failed_block_may_be_given_up(client: Client, database: Database) -> None:
    result = ended(client, database, swallow.call())
    assert (result.get(), effects(database, result.id)) == ("swallowed", [])


def test_keys_and_workflows_go_on(client: Client, database: Database) -> None:
    keyed = client.enqueue_many([write.using(lock_key="one").call(i) for i in range(6)])
    steps = client.begin(chain(write.call(1), write_later.call(2), write.call(3)))
    members, callback = client.begin(chord(*[write.call(i) for i in range(4)], callback=write_later.call("all")))
    every = [*keyed, *steps, *members, callback]
    Runs(database).ended(every, HANG_S)
    assert {result.status for result in client.results(every).values()} == {RunStatus.SUCCESSFUL}
    assert [effects(database, run) for run in every] == [[1]] * len(every)


def test_who_lost_the_lease_leaves_nothing(client: Client, database: Database, tmp_path: Path, kind: str, pool: Any) -> None:
    go = tmp_path / "go"
    id_ = client.enqueue(write_when_told.call(str(go)))
    eventually(lambda: client.result(id_).progress is not None, timeout=HANG_S, what="it runs, and says so")
    # As a keeper does that believes the worker to be dead; the next attempt may run beside the first one, which does not know yet.
    Runs(database).release(pool[0].start_message["worker_id"])
    go.touch()
    Runs(database).ended([id_], HANG_S)
    result = client.result(id_)
    assert (result.status, result.get()) == (RunStatus.SUCCESSFUL, "mine")
    assert len(effects(database, id_)) == 1


def test_the_database_is_in_no_argument_and_no_environment_and_nobody_connects_ahead(client: Client, database: Database, kind: str) -> None:
    seen = ended(client, database, look_for_secrets.call()).get()
    shown = [where for where, text in seen.items() if isinstance(text, str) and database.name in text]
    assert shown == []
    if kind == "fork":
        assert seen["driver"] is False
    assert seen["sockets of the nursery"] >= 1  # its channel, and the ends of executors: no connection, or it would not fork


def test_a_whole_shard_that_dies_after_the_commit_doubles_nothing(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.new_database(cluster.ensure_template(migrate)) as database, Client(database.dsn) as client:
        make_effects(database)
        with running_shard(database, app=APP, log=tmp_path / "first.log") as first:
            go = tmp_path / "go"
            id_, child = client.begin(chain(write_when_told.call(str(go)), write.call()))
            eventually(lambda: client.result(id_).progress is not None, timeout=HANG_S, what="it runs")
            os.kill(first.pid, signal.SIGSTOP)
            go.touch()
            eventually(lambda: effects(database, id_) == [1], timeout=HANG_S, what="it has committed")
            first.kill()
        assert client.result(id_).get() == "mine"
        Runs(database).release(first.start_message["worker_id"])
        with running_shard(database, app=APP, log=tmp_path / "second.log"):
            Runs(database).ended([child], HANG_S)
        assert (client.result(id_).attempts, effects(database, id_)) == (1, [1])


@pytest.mark.parametrize(
    ("pool_settings", "words"),
    [
        ({"task_database": "none"}, "got none; set task_database"),
        ({"isolation": "exec", "exec": EXEC}, "a program of its own"),
    ],
)
def test_where_tasks_have_no_database_they_are_told(cluster: Cluster, tmp_path: Path, pool_settings: dict[str, Any], words: str) -> None:
    with (
        cluster.new_database(cluster.ensure_template(migrate)) as database,
        running_shard(database, app=APP, log=tmp_path / "log", **pool_settings),
        Client(database.dsn) as client,
    ):
        assert words in ended(client, database, write.using(max_attempts=1).call()).errors[-1]["message"]


def test_a_task_may_complete_under_a_role_that_may_do_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.new_database(cluster.ensure_template(migrate)) as database, Client(database.dsn) as client:
        make_effects(database)
        role = f"tasks_{database.name}"
        database.query(f"CREATE ROLE {role} LOGIN")
        try:
            database.query(f"GRANT INSERT ON effects TO {role}")
            dsn = database.dsn.replace("//reproq@", f"//{role}@")
            assert dsn != database.dsn
            with running_shard(database, app=APP, task_database=dsn, log=tmp_path / "log"):
                result = ended(client, database, write.call("least"))
                assert (result.get(), effects(database, result.id)) == ("least", [1])
                database.query(f"REVOKE INSERT ON effects FROM {role}")
                refused = ended(client, database, write.using(max_attempts=1).call())
                assert "permission denied for table effects" in refused.errors[-1]["message"]
        finally:
            database.query(f"DROP OWNED BY {role}")
            database.query(f"DROP ROLE {role}")
