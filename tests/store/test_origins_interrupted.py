"""A migration that is cut off anywhere, by a signal, a crash or somebody in the way, ends the same when it is started again."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.migrate import Step, migrate, plan
from reproq_supervisor.store.schema import indexes
from reproq_supervisor.store.schema.step import Work
from tests.store import layouts
from tests.store.actors import assert_invariant
from tests.store.catalog import catalog
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

Layout = Callable[[psycopg.Connection[Any]], None]
# The two that differ most, and one with everything missing.
LAYOUTS = pytest.mark.parametrize(
    "layout", [layouts.django_then_worker, layouts.before_the_baseline, lambda _: None], ids=["both", "early", "empty"]
)


class Cut(BaseException):
    """The end of the process, as far as the database can tell."""


@pytest.fixture
def wanted(database: Database) -> dict[str, list[str]]:
    """The catalogue that an empty database ends with."""
    with database.connect() as connection:
        return catalog(connection)


@pytest.fixture
def cut_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the next migration commit so many times, whether in a transaction of a step or outside, and cuts it off before the next."""
    left = 0
    commit, drop, build = Work._commit, indexes._drop, indexes.MakeIndex._build

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Cut
            left -= 1
            return original(*arguments, **named)

        return call

    monkeypatch.setattr(Work, "_commit", counted(commit))
    monkeypatch.setattr(indexes, "_drop", counted(drop))
    monkeypatch.setattr(indexes.MakeIndex, "_build", counted(build))

    def allow(commits: int) -> None:
        nonlocal left
        left = commits

    return allow


@LAYOUTS
def test_cut_off_after_every_single_commit_it_ends_the_same(
    empty_database: Database, layout: Layout, wanted: dict[str, list[str]], cut_after: Callable[[int], None]
) -> None:
    with empty_database.connect() as connection:
        layout(connection)
        if layout is layouts.django_then_worker:
            layouts.insert(connection, "SUCCESSFUL", 100)
            layouts.insert(connection, "READY", 10)
    cuts, commits, before = 0, 1, None
    while True:
        with empty_database.connect() as connection:
            missing = len(plan(connection))
            # A step of several commits that begins anew each time, as the walk through the record does, is given one more each time.
            commits = commits + 1 if missing == before else 1
            before = missing
            cut_after(commits)
            try:
                migrate(connection)
            except Cut:
                cuts += 1
                assert commits < 10, f"expected each call to get further, got stuck at {plan(connection)[0].name}"
            else:
                assert catalog(connection) == wanted
                break
    assert cuts > 10
    assert_invariant(empty_database)


def test_an_index_that_was_left_invalid_is_built_anew(database: Database, wanted: dict[str, list[str]]) -> None:
    with database.connect() as connection:
        layouts.insert(connection, "SUCCESSFUL", 500)
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'task_runs_failed'::regclass")
        assert [step.name for step in plan(connection)] == ["index task_runs_failed"]
        migrate(connection)
        assert catalog(connection) == wanted


def test_an_index_that_an_abandoned_server_process_still_builds_is_waited_for(
    empty_database: Database, wanted: dict[str, list[str]]
) -> None:
    """Its client was killed; the server goes on, here because it waits for a transaction that is open."""
    told: list[str] = []
    with empty_database.connect() as connection:
        layouts.go(connection)
        layouts.insert(connection, "SUCCESSFUL", 500)
        connection.execute("ALTER TABLE task_runs ADD COLUMN dedupe_key text")
    with empty_database.connect() as blocker, empty_database.connect() as abandoned, empty_database.connect() as connection:
        with blocker.transaction():
            layouts.insert(blocker, "SUCCESSFUL", prefix="open-")
            build = b"CREATE UNIQUE INDEX CONCURRENTLY task_runs_dedupe ON task_runs (dedupe_key) WHERE dedupe_key IS NOT NULL"
            builder = threading.Thread(target=abandoned.execute, args=(build,))
            builder.start()
            building = "SELECT 1 FROM pg_stat_progress_create_index WHERE index_relid = to_regclass('task_runs_dedupe')"
            eventually(lambda: empty_database.query(building), timeout=60, what="the abandoned index is being built")
            abandoning = Work(connection, told.append)
            waiting = threading.Thread(target=indexes._wait_for_abandoned, args=(abandoning, "task_runs_dedupe"))
            waiting.start()
            eventually(lambda: told, timeout=60, what="the migration waits")
        waiting.join()
        builder.join()
        migrate(connection)
        assert catalog(connection) == wanted
    assert "waits for a builder whose migration was cut off" in told


def test_an_index_that_takes_long_says_how_far_it_is(empty_database: Database) -> None:
    told: list[str] = []
    with empty_database.connect() as connection, empty_database.connect(autocommit=False) as blocker:
        layouts.go(connection)
        layouts.insert(connection, "SUCCESSFUL", 500)

        def tell(step: Step, words: str) -> None:
            if step.name == "index task_runs_failed":
                told.append(words)
                if words:
                    blocker.commit()
                else:
                    layouts.insert(blocker, "SUCCESSFUL", prefix="open-")

        migrate(connection, tell)
    assert told[1].startswith("waiting for writers before build")


def test_an_index_is_given_up_when_its_migration_is_interrupted_and_built_by_the_next(
    empty_database: Database, wanted: dict[str, list[str]]
) -> None:
    with empty_database.connect() as connection, empty_database.connect(autocommit=False) as blocker:
        layouts.go(connection)
        layouts.insert(connection, "SUCCESSFUL", 500)

        def tell(step: Step, words: str) -> None:
            if step.name == "index task_runs_failed":
                if words:
                    raise KeyboardInterrupt
                layouts.insert(blocker, "SUCCESSFUL", prefix="open-")

        with pytest.raises(KeyboardInterrupt):
            migrate(connection, tell)
        blocker.rollback()
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    assert empty_database.query(invalid) == [("task_runs_failed",)]
    with empty_database.connect() as connection:
        migrate(connection)
        assert catalog(connection) == wanted


def test_two_at_once_on_an_older_layout_end_as_one(empty_database: Database, wanted: dict[str, list[str]]) -> None:
    with empty_database.connect() as connection:
        layouts.django(connection)
        layouts.insert(connection, "SUCCESSFUL", 500)
        layouts.insert(connection, "READY", 50)
    taken: list[list[Step]] = []

    def work() -> None:
        with empty_database.connect() as connection:
            taken.append(migrate(connection))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [step.name for part in taken for step in part]
    assert len(names) == len(set(names))
    with empty_database.connect() as connection:
        assert catalog(connection) == wanted


def test_who_comes_second_says_so_and_gives_up_in_the_end(empty_database: Database) -> None:
    told: list[str] = []
    with empty_database.connect() as connection, empty_database.connect(autocommit=False) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('reproq migrate public', 0))")
        with pytest.raises(StoreUnavailable, match="expected to migrate it alone"):
            migrate(connection, lambda _, words: told.append(words), patience_s=0.5)
        assert set(told) == {"another migration is under way, waits for its end"}
        other.rollback()
        assert migrate(connection)


def test_who_lost_the_lock_stops_before_the_next_step(empty_database: Database, wanted: dict[str, list[str]]) -> None:
    holders = """SELECT pg_terminate_backend(l.pid, 60000)
                 FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
                 WHERE l.locktype = 'advisory'"""

    def lose(step: Step, _: str) -> None:
        if step.version == 2:
            assert empty_database.query(holders) == [(True,)]

    with empty_database.connect() as connection:
        with pytest.raises(StoreUnavailable):
            migrate(connection, lose)
        assert plan(connection)[0].version == 3
        migrate(connection)
        assert catalog(connection) == wanted


@contextmanager
def migrating(database: Database) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the command in a process of its own, which has ended after the block."""
    argv = [sys.executable, "-P", "-m", "reproq_supervisor", "migrate", "--dsn", database.dsn]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_kill_9_of_the_command_and_of_the_server_at_any_time_and_it_ends_the_same(own_cluster: Cluster) -> None:
    dice = random.Random(20)
    with own_cluster.new_database() as fresh, fresh.connect() as connection:
        migrate(connection)
        wanted = catalog(connection)
    with own_cluster.new_database() as database:
        with database.connect() as connection:
            layouts.go(connection)
            layouts.insert(connection, "SUCCESSFUL", 20_000)
            runs = layouts.insert(connection, "READY", 2_000)
        for attempt in range(12):
            with migrating(database) as process:
                # From far too early to about its end; where exactly it hits is up to the machine.
                try:
                    process.wait(timeout=0.4 + 0.15 * attempt + dice.random() * 0.2)
                except subprocess.TimeoutExpired:
                    process.kill()
                if attempt % 4 == 3:
                    own_cluster.kill()
                    own_cluster.start()
        with database.connect() as connection:
            migrate(connection)
            assert catalog(connection) == wanted
        assert_invariant(database)
        assert database.query("SELECT count(*) FROM task_lane WHERE state = 'ready'") == [(len(runs),)]
        assert database.query("SELECT count(*) FROM task_runs") == [(22_000,)]
