"""Whatever made the tables, `migrate` brings them to one schema, and everything in them lives on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from reproq_supervisor.store.errors import StoreError
from reproq_supervisor.store.migrate import Step, migrate, plan
from tests.store import layouts
from tests.store.actors import Keeper, Shard, assert_invariant, ended, lane, record
from tests.store.catalog import catalog
from tests.support.postgres import Database

Layout = Callable[[psycopg.Connection[Any]], None]
EVERY_LAYOUT = pytest.mark.parametrize("layout", layouts.OLDER.values(), ids=layouts.OLDER)


@pytest.fixture
def shard_on(empty_database: Database) -> Iterator[Callable[[], Shard]]:
    """Makes a shard once there is a schema."""
    with ExitStack() as stack:

        def make() -> Shard:
            shard = Shard(empty_database.dsn)
            stack.enter_context(ended(shard))
            return shard

        yield make


@pytest.fixture
def keeper_on(empty_database: Database) -> Iterator[Callable[[], Keeper]]:
    """Makes a keeper once there is a schema."""
    with ExitStack() as stack:

        def make() -> Keeper:
            keeper = Keeper(empty_database.dsn)
            stack.enter_context(ended(keeper))
            return keeper

        yield make


@pytest.fixture
def wanted(database: Database) -> dict[str, list[str]]:
    """The catalogue that an empty database ends with."""
    with database.connect() as connection:
        return catalog(connection)


@EVERY_LAYOUT
def test_every_layout_ends_as_an_empty_database_does(empty_database: Database, layout: Layout, wanted: dict[str, list[str]]) -> None:
    with empty_database.connect() as connection:
        layout(connection)
        migrate(connection)
        assert plan(connection) == []
        for kind, lines in catalog(connection).items():
            assert lines == wanted[kind], kind
    assert_invariant(empty_database)


class Told:
    """What a migration said."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, step: Step, words: str) -> None:
        self.words.append(words)


def fill(connection: psycopg.Connection[Any]) -> dict[str, list[int]]:
    """Insert runs of every kind that an older worker leaves behind."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    workflow = {"workflow_id": "3f0e8a6e-0000-4000-8000-000000000001"}
    runs = {
        "ended": [run for status in ("SUCCESSFUL", "FAILED", "CANCELLED") for run in layouts.insert(connection, status, 1000)],
        "ready": layouts.insert(connection, "READY", 20),
        "due later": layouts.insert(connection, "READY", 2, run_after=soon, prefix="later-"),
        "keyed": layouts.insert(connection, "READY", 2, lock_key="k", prefix="keyed-"),
        "running": layouts.insert(connection, "RUNNING", 2, leased_by="older", leased_until=soon),
        "expired": layouts.insert(connection, "RUNNING", 1, leased_by="older", leased_until=soon - timedelta(hours=1), prefix="expired-"),
        "without a lease": layouts.insert(connection, "RUNNING", 1, prefix="bare-"),
        "callback": layouts.insert(connection, "WAITING", 1, **workflow),
        "member": layouts.insert(connection, "READY", 2, prefix="member-", **workflow),
    }
    runs["chained"] = layouts.insert(connection, "WAITING", 1, parent_id=runs["ready"][0], prefix="chained-")
    return runs


@EVERY_LAYOUT
def test_what_was_there_lives_on(empty_database: Database, layout: Layout, shard_on: Callable[[], Shard]) -> None:
    with empty_database.connect() as connection:
        layout(connection)
        if layout is layouts.before_the_baseline:
            connection.execute(b"ALTER TABLE task_runs ADD COLUMN task_path text, ADD COLUMN failed_at timestamptz")
            connection.execute(b"ALTER TABLE task_runs ADD COLUMN metadata_json jsonb, ADD COLUMN concurrency_limit integer")
        runs = fill(connection)
        before = connection.execute("SELECT count(*), max(result_id) FROM task_runs").fetchone()
        migrate(connection)
        assert connection.execute("SELECT count(*), max(result_id) FROM task_runs").fetchone() == before
    assert_invariant(empty_database)
    rows = empty_database.query("SELECT result_id, state, park_reason FROM task_lane")
    lanes = {run: (state, reason) for run, state, reason in rows}
    states = {kind: {lanes.get(run) for run in runs[kind]} for kind in runs}
    assert states == {
        "ended": {None},
        "ready": {("ready", None)},
        "due later": {("parked", "due")},
        "keyed": {("ready", None)},
        "member": {("ready", None)},
        "running": {("running", None)},
        "expired": {("running", None)},
        "without a lease": {("running", None)},
        "callback": {("waiting", None)},
        "chained": {("waiting", None)},
    }
    assert record(empty_database, runs["ready"][0])["dedupe_key"] == "READY-1"
    assert record(empty_database, runs["ended"][0])["dedupe_key"] is None
    shard = shard_on()
    claimed = {claimed.result_id for claimed in shard.claim(100)}
    assert claimed - set(runs["keyed"]) == {*runs["ready"], *runs["member"]}
    assert len(claimed & set(runs["keyed"])) == 1, "they have one key"


def test_what_an_older_worker_lost_is_reclaimed_and_what_it_holds_is_left_to_it(
    empty_database: Database, keeper_on: Callable[[], Keeper]
) -> None:
    with empty_database.connect() as connection:
        layouts.go(connection)
        runs = fill(connection)
        migrate(connection)
        keeper = keeper_on()
        assert keeper.run(keeper.store.reclaim()) == 2
        held = runs["running"][0]
        assert connection.execute(layouts.COMPLETE.encode(), {"run": held, "worker": "older"}).fetchall() == [(held,)]
    assert record(empty_database, runs["expired"][0])["errors_json"][0]["kind"] == "lease_expiry"
    assert_invariant(empty_database)


def test_of_runs_that_were_made_twice_both_stay_and_the_older_one_owns_the_key(empty_database: Database) -> None:
    told = Told()
    with empty_database.connect() as connection:
        layouts.django(connection)
        first, second, third = (layouts.insert(connection, "READY", prefix="same-")[0] for _ in range(3))
        migrate(connection, told)
    assert [record(empty_database, run)["dedupe_key"] for run in (first, second, third)] == ["same-1", None, None]
    assert "2 of them are duplicates of another active run: both stay, only the older one owns the key" in told.words


def test_a_hash_that_was_padded_is_the_same_hash(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        layouts.go(connection)
        (run,) = layouts.insert(connection, "READY", prefix="0123456789abcdef0123456789abcde")
        migrate(connection)
        (found,) = connection.execute(
            "SELECT result_id FROM task_runs WHERE spec_hash = '0123456789abcdef0123456789abcde1'"
        ).fetchone() or (0,)
        assert found == run
        with pytest.raises(psycopg.errors.UniqueViolation):
            layouts.insert(connection, "READY", prefix="0123456789abcdef0123456789abcde")
    assert record(empty_database, run)["dedupe_key"] == "0123456789abcdef0123456789abcde1"


def test_a_run_without_any_path_says_so_and_stops_nothing(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        layouts.before_the_baseline(connection)
        connection.execute("INSERT INTO task_runs (spec_json, spec_hash, worker_ids, errors_json) VALUES ('{}', 'a', NULL, NULL)")
        connection.execute("""INSERT INTO task_runs (spec_json, spec_hash) VALUES ('{"task_path": "app.known"}', 'b')""")
        migrate(connection)
        rows = connection.execute("SELECT task_path, priority, worker_ids, errors_json FROM task_runs ORDER BY result_id").fetchall()
    assert rows == [("(none)", 0, [], []), ("app.known", 0, [], [])]


def test_new_numbers_go_on_where_the_older_ones_ended(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        layouts.go(connection)
        connection.execute("SELECT setval('task_runs_result_id_seq', 4711)")
        migrate(connection)
        assert layouts.insert(connection, "READY") == [4712]


@pytest.mark.parametrize("layout", [layouts.go, layouts.django])
def test_the_older_products_own_migrations_may_follow_and_change_nothing_that_matters(
    empty_database: Database, layout: Layout, wanted: dict[str, list[str]]
) -> None:
    with empty_database.connect() as connection:
        layout(connection)
        migrate(connection)
        layouts.migrate_worker(connection)
        assert plan(connection) != []
        migrate(connection)
        assert catalog(connection) == wanted


def test_a_database_of_an_earlier_version_of_ours_comes_along(database: Database, wanted: dict[str, list[str]]) -> None:
    with database.connect() as connection:
        (run,) = layouts.insert(connection, "READY")
        connection.execute("ALTER TABLE task_runs ALTER COLUMN spec_hash TYPE char(64), ALTER COLUMN result_id DROP IDENTITY")
        connection.execute("CREATE SEQUENCE task_runs_result_id_seq START 10 OWNED BY task_runs.result_id")
        connection.execute("ALTER TABLE task_runs ALTER COLUMN result_id SET DEFAULT nextval('task_runs_result_id_seq')")
        connection.execute("ALTER TABLE reproq_schema_migrations DROP COLUMN revision")
        connection.execute("DELETE FROM reproq_schema_migrations WHERE version > 8")
        migrate(connection)
        assert catalog(connection) == wanted
        assert layouts.insert(connection, "READY", prefix="new-") == [10]
    assert lane(database, run) is not None


def test_a_column_of_a_type_that_does_not_become_ours_is_named_and_nothing_is_changed(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        layouts.go(connection)
        connection.execute("ALTER TABLE task_runs ALTER COLUMN priority TYPE double precision")
        before = catalog_without_files(connection)
        with pytest.raises(StoreError, match=r"task_runs.priority: expected the type integer, got double precision"):
            migrate(connection)
        assert catalog_without_files(connection) == before


def catalog_without_files(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT relname, relkind::text, relnatts FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    ).fetchall()
