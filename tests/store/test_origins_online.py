"""Producers and older workers go on while a database is migrated, and nobody waits long for anybody."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.migrate import migrate, plan
from reproq_supervisor.store.schema.step import CHANGE_TIMEOUT, LOCK_TIMEOUT
from tests.store import layouts
from tests.store.actors import assert_invariant
from tests.support.eventually import eventually
from tests.support.postgres import Database, running_cluster

Layout = Callable[[psycopg.Connection[Any]], None]


@contextmanager
def meanwhile(*works: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run *works* in threads until the block ends; each is told by its event to stop. What one raises is raised at the end."""
    over, errors = threading.Event(), list[BaseException]()

    def run(work: Callable[[threading.Event], None]) -> None:
        try:
            work(over)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


@pytest.mark.parametrize("layout", [layouts.go, layouts.django, layouts.django_then_worker])
def test_what_is_inserted_and_worked_off_meanwhile_is_neither_lost_nor_run_twice(empty_database: Database, layout: Layout) -> None:
    inserted: list[list[int]] = [[], []]
    claimed: list[int] = []
    completed: list[int] = []

    def produce(number: int) -> Callable[[threading.Event], None]:
        def work(over: threading.Event) -> None:
            with empty_database.connect() as connection:
                while not over.is_set():
                    inserted[number] += layouts.insert(connection, "READY", prefix=f"{number}-{len(inserted[number])}-")

        return work

    def consume(over: threading.Event) -> None:
        with empty_database.connect() as connection:
            while not over.is_set():
                for (run,) in connection.execute(layouts.CLAIM.encode(), {"worker": "older"}).fetchall():
                    claimed.append(run)
                    done = connection.execute(layouts.COMPLETE.encode(), {"run": run, "worker": "older"}).fetchall()
                    completed.extend(row[0] for row in done)

    with empty_database.connect() as connection:
        layout(connection)
        layouts.insert(connection, "SUCCESSFUL", 2_000)
        waiting = layouts.insert(connection, "READY", 200)
        with meanwhile(produce(0), produce(1), consume):
            eventually(lambda: inserted[0] and inserted[1] and claimed, timeout=60, what="producers and the older worker work")
            migrate(connection)
            before = len(inserted[0])
            eventually(lambda: len(inserted[0]) > before, timeout=60, what="a producer goes on after the end")
    assert_invariant(empty_database)
    runs = {*waiting, *inserted[0], *inserted[1]}
    assert len(claimed) == len(set(claimed))
    assert set(completed) == set(claimed)
    ready = {run for (run,) in empty_database.query("SELECT result_id FROM task_lane WHERE state = 'ready'")}
    assert ready | set(completed) == runs
    assert not ready & set(completed)


def test_a_producer_never_waits_a_second_for_a_lock_that_is_asked_for() -> None:
    """Whoever comes after the request waits as long as the request may wait, and then as long as the change may take."""
    waits_ms = [int(timeout.removesuffix("ms")) for timeout in (LOCK_TIMEOUT, CHANGE_TIMEOUT)]
    assert sum(waits_ms) < 1000


def test_a_transaction_that_somebody_left_open_is_waited_for_by_name_while_others_insert(empty_database: Database) -> None:
    told: list[str] = []
    with empty_database.connect() as connection, empty_database.connect(application_name="sleeper", autocommit=False) as sleeper:
        layouts.go(connection)
        layouts.insert(sleeper, "READY")
        migration = threading.Thread(target=migrate, args=(connection, lambda _, words: told.append(words)))
        migration.start()
        with empty_database.connect() as producer:
            eventually(lambda: [words for words in told if "sleeper" in words], timeout=60, what="the migration says whom it waits for")
            layouts.insert(producer, "READY", prefix="beside-")
        sleeper.commit()
        migration.join()
        assert plan(connection) == []
    assert "waits for transactions that hold task_runs: pid" in next(words for words in told if "sleeper" in words)
    assert empty_database.query("SELECT count(*) FROM task_lane WHERE state = 'ready'") == [(2,)]


def test_patience_ends_with_the_name_of_who_was_in_the_way(empty_database: Database) -> None:
    with empty_database.connect() as connection, empty_database.connect(application_name="sleeper", autocommit=False) as sleeper:
        layouts.go(connection)
        layouts.insert(sleeper, "READY")
        with pytest.raises(StoreUnavailable, match=r"task_runs: expected to be let in within 0 s, got transactions that hold .*sleeper"):
            migrate(connection, patience_s=0)
        sleeper.rollback()
        migrate(connection)
        assert plan(connection) == []


def test_records_that_somebody_has_locked_are_passed_over_and_come_later(empty_database: Database) -> None:
    """Only its record is locked, as by an older worker's claim: the migration deals with the others first."""
    with empty_database.connect() as connection:
        layouts.go(connection)
        held, *others = layouts.insert(connection, "READY", 3)
        with pytest.raises(RuntimeError, match="stop here"):
            migrate(connection, _stop_at_adoption)
        locker = empty_database.connect(autocommit=False)
        locker.execute("SELECT FROM task_runs WHERE result_id = %s FOR UPDATE", (held,))
        migration = threading.Thread(target=migrate, args=(connection,))
        migration.start()
        lanes = "SELECT result_id FROM task_lane ORDER BY 1"
        eventually(lambda: empty_database.query(lanes) == [(run,) for run in others], timeout=60, what="the others are in the lane")
        locker.rollback()
        locker.close()
        migration.join()
    assert_invariant(empty_database)


def test_an_older_worker_claims_what_nobody_has_taken_over_yet(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        layouts.go(connection)
        (run,) = layouts.insert(connection, "READY")
        with pytest.raises(RuntimeError, match="stop here"):
            migrate(connection, _stop_at_adoption)
        assert connection.execute(layouts.CLAIM.encode(), {"worker": "older"}).fetchall() == [(run,)]
        migrate(connection)
        assert connection.execute("SELECT state, leased_by, lease_no FROM task_lane").fetchall() == [("running", "older", 0)]
        assert connection.execute(layouts.COMPLETE.encode(), {"run": run, "worker": "older"}).fetchall() == [(run,)]


def test_a_run_that_a_producer_makes_again_meanwhile_is_refused_by_one_guard_or_the_other(empty_database: Database) -> None:
    refused: list[int] = []

    def produce(over: threading.Event) -> None:
        with empty_database.connect() as connection:
            while not over.is_set():
                try:
                    layouts.insert(connection, "READY", prefix="same-")
                except psycopg.errors.UniqueViolation:
                    refused.append(1)

    with empty_database.connect() as connection:
        layouts.go(connection)
        layouts.insert(connection, "READY", prefix="same-")
        with meanwhile(produce):
            eventually(lambda: refused, timeout=60, what="the producer is refused")
            migrate(connection)
    assert empty_database.query("SELECT count(*) FROM task_runs") == [(1,)]


def _stop_at_adoption(step: Any, words: str) -> None:
    if step.name == "adoption" and not words:
        raise RuntimeError("stop here")


@pytest.mark.slow
def test_an_autovacuum_that_takes_hours_gives_way() -> None:
    """It yields only to somebody who waits for it for a whole second, longer than a producer may be kept waiting."""
    with (
        running_cluster("-c", "autovacuum_naptime=1s") as cluster,
        cluster.new_database() as database,
        database.connect() as connection,
    ):
        layouts.go(connection)
        # A tenth of a second of rest after each page or two.
        connection.execute("ALTER TABLE task_runs SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)")
        layouts.insert(connection, "SUCCESSFUL", 20_000)
        connection.execute("UPDATE task_runs SET updated_at = now()")
        vacuuming = "SELECT pid FROM pg_stat_progress_vacuum WHERE relid = 'task_runs'::regclass"
        eventually(lambda: database.query(vacuuming), timeout=120, what="autovacuum is at work on the record")
        migrate(connection, patience_s=60)
        assert plan(connection) == []
