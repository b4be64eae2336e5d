"""The schema is made once, whoever makes it and however often it was interrupted."""

import threading
from collections.abc import Callable

import psycopg
import pytest

from reproq_supervisor.store.commands import NewRun, enqueue
from reproq_supervisor.store.errors import SchemaNewer, StoreError
from reproq_supervisor.store.migrate import Step, migrate, plan, schema_is_current, steps
from reproq_supervisor.store.schema.files import FileStep, texts
from tests.store.actors import Shard, ended
from tests.support.postgres import Database


def test_a_new_database_gets_every_step_in_order(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        taken = migrate(connection)
        assert [step.version for step in taken if step.version] == list(texts())
        assert schema_is_current(connection)


def test_a_second_run_finds_nothing_to_do(database: Database) -> None:
    with database.connect() as connection:
        assert plan(connection) == []
        assert migrate(connection) == []


def test_every_step_says_which_lock_it_takes() -> None:
    assert [step.name for step in steps() if not step.locks] == []


def test_a_step_of_an_older_revision_is_taken_again(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("UPDATE reproq_schema_migrations SET revision = 0 WHERE version = 7")
        assert [step.version for step in migrate(connection)] == [7]
        assert migrate(connection) == []


def test_a_list_of_steps_without_revisions_is_one_of_first_revisions(database: Database) -> None:
    revised = [step.version for step in steps() if isinstance(step, FileStep) and step.revision > 1]
    with database.connect() as connection:
        connection.execute("ALTER TABLE reproq_schema_migrations DROP COLUMN revision")
        assert [step.version for step in migrate(connection)] == revised
        assert migrate(connection) == []


def test_a_step_of_a_newer_revision_is_refused(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("UPDATE reproq_schema_migrations SET revision = 99 WHERE version = 7")
        with pytest.raises(StoreError, match=r"expected step 7 in revision .*, got 99; use the newer program"):
            migrate(connection)


def test_every_step_can_be_taken_twice(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("DELETE FROM reproq_schema_migrations")
        assert [step.version for step in migrate(connection)] == list(texts())


@pytest.mark.parametrize("last", texts())
def test_what_was_interrupted_is_continued(empty_database: Database, last: int) -> None:
    def interrupt(step: Step, _: str) -> None:
        if step.version == last:
            raise KeyboardInterrupt

    with empty_database.connect() as connection:
        with pytest.raises(KeyboardInterrupt):
            migrate(connection, interrupt)
        assert [step.version for step in migrate(connection) if step.version] == [version for version in texts() if version >= last]


def test_of_two_at_once_the_second_waits_and_finds_nothing(empty_database: Database) -> None:
    taken: list[list[Step]] = []

    def work() -> None:
        with empty_database.connect() as connection:
            taken.append(migrate(connection))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(step.version for part in taken for step in part if step.version) == list(texts())


def test_it_works_inside_a_connection_that_prepares_everything_and_is_not_autocommit(empty_database: Database) -> None:
    with psycopg.connect(empty_database.dsn, prepare_threshold=0) as connection:
        assert [step.version for step in migrate(connection) if step.version] == list(texts())
    with empty_database.connect() as connection:
        assert schema_is_current(connection)


def test_a_table_of_another_product_is_refused_and_left_alone(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute("CREATE TABLE task_runs (result_id bigserial PRIMARY KEY, status text)")
        with pytest.raises(StoreError, match="expected no table, or one with the contract's columns"):
            migrate(connection)
        (columns,) = connection.execute("SELECT count(*) FROM information_schema.columns WHERE table_name = 'task_runs'").fetchone() or (0,)
        assert columns == 2


def test_a_schema_of_a_newer_program_is_refused(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("INSERT INTO reproq_schema_migrations VALUES (999, 'future')")
        with pytest.raises(SchemaNewer, match=r"expected steps up to .*, got 999; use the newer program"):
            migrate(connection)


@pytest.fixture
def dsn_of(empty_database: Database) -> Callable[[str], str]:
    """Makes a schema and returns the DSN of a user whose path is that schema."""

    def make(schema: str) -> str:
        with empty_database.connect() as connection:
            connection.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(psycopg.sql.Identifier(schema)))
        return psycopg.conninfo.make_conninfo(empty_database.dsn, options=f'-csearch_path="{schema}"')

    return make


def test_two_schemas_of_one_database_know_nothing_of_each_other(dsn_of: Callable[[str], str]) -> None:
    dsns = [dsn_of("One"), dsn_of("two")]
    for dsn in dsns:
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection)
            enqueue(connection, [NewRun("app.task", [dsn])])
    for dsn in dsns:
        shard = Shard(dsn)
        with ended(shard):
            assert len(shard.claim(10)) == 1


def test_a_producer_with_another_search_path_makes_complete_rows(empty_database: Database, dsn_of: Callable[[str], str]) -> None:
    dsn = dsn_of("queue")
    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection)
    with empty_database.connect() as connection:
        connection.execute('INSERT INTO queue.task_runs (spec_json, spec_hash) VALUES (\'{"task_path": "app.task"}\', %s)', ("a" * 64,))
        assert connection.execute("SELECT count(*) FROM queue.task_lane").fetchone() == (1,)


def test_a_schema_with_a_very_long_name_has_a_channel_of_its_own(dsn_of: Callable[[str], str]) -> None:
    dsn = dsn_of("s" * 63)
    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection)
        (channel,) = connection.execute("SELECT reproq_channel()").fetchone() or ("",)
        assert 0 < len(channel.encode()) < 64
        connection.execute("SELECT pg_notify(reproq_channel(), 'x')")
