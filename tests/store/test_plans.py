"""What the daemon asks again and again reads as much as it takes, whatever waits beside it and whatever the statistics say."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.store.actors import Shard, ended
from tests.support.eventually import eventually
from tests.support.postgres import Cluster, Database

BACKLOG = 200_000
INSERT = """
INSERT INTO task_runs (queue_name, priority, spec_json, spec_hash, task_path, status, run_after, dedupe_key, lock_key, finished_at)
SELECT CASE WHEN n %% 10 = 0 THEN 'rare' ELSE 'default' END, n %% 7, '{"task_path": "app.task"}', n::text, 'app.task',
       CASE WHEN %(kind)s = 'ended' THEN 'SUCCESSFUL' ELSE 'READY' END,
       CASE WHEN %(kind)s = 'due' THEN now() + interval '1 day' END, NULL, CASE WHEN %(kind)s = 'keyed' THEN 'k' END, now()
FROM generate_series(1, %(count)s) n
"""
# Statistics as they may be: never gathered, of an empty table, and of the table as it is.
STATISTICS = ("none", "empty", "fresh")


@pytest.fixture(scope="module", params=STATISTICS)
def full(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Database]:
    """A database with a large backlog, a large history, much parked, and statistics of one kind."""
    from reproq_supervisor.store.migrate import migrate

    with cluster.new_database(cluster.ensure_template(migrate)) as database:
        with database.connect() as connection:
            connection.execute("ALTER TABLE task_runs SET (autovacuum_enabled = off)")
            connection.execute("ALTER TABLE task_lane SET (autovacuum_enabled = off)")
            if request.param == "empty":
                connection.execute("VACUUM ANALYZE task_runs, task_lane, reproq_cancel_requests, reproq_queue_settings")
            for kind, count in (("ended", BACKLOG // 2), ("due", BACKLOG // 4), ("keyed", BACKLOG // 4), ("ready", BACKLOG)):
                connection.execute(INSERT, {"kind": kind, "count": count})
            if request.param == "fresh":
                connection.execute("VACUUM ANALYZE")
        yield database


class Reads:
    """What the session has read so far; the server counts it up to its last report, never between two calls of one transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def scans(self) -> int:
        """Sequential scans of the two large tables."""
        return self._number("SELECT pg_stat_get_xact_numscans('task_lane'::regclass) + pg_stat_get_xact_numscans('task_runs'::regclass)")

    def entries(self) -> int:
        """Entries that were read from their indexes."""
        return self._number(
            """SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid))::int
               FROM pg_index WHERE indrelid IN ('task_lane'::regclass, 'task_runs'::regclass)"""
        )

    def _number(self, statement: str) -> int:
        row = self._connection.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def asked(full: Database) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Runs statements, each a transaction, and asserts that each reads a few index entries for every run and no table as a whole."""
    with full.connect(autocommit=False) as connection:
        reads = Reads(connection)

        def ask(statement: str, *parameters: object, runs: int) -> list[tuple[Any, ...]]:
            before_scans, before_entries = reads.scans(), reads.entries()
            rows = connection.execute(statement.encode(), parameters).fetchall()
            scans, entries = reads.scans() - before_scans, reads.entries() - before_entries
            connection.commit()
            assert scans == 0, f"a sequential scan in {statement}"
            assert entries <= 12 * runs + 20, f"index entries read by {statement}"
            return rows

        yield ask


CLAIM = "SELECT result_id, lease_no FROM reproq_claim('w', 60, %s::text[], %s::int[]) WHERE what = 'claimed'"


def test_a_claim_reads_what_it_takes(asked: Callable[..., list[tuple[Any, ...]]]) -> None:
    assert len(asked(CLAIM, ["default"], [100], runs=100)) == 100
    assert len(asked(CLAIM, ["rare", "default"], [10, 10], runs=20 + 100)) == 20  # the entries of the last claim are passed once more
    assert len(asked(CLAIM, ["default"], [1], runs=1 + 10)) == 1
    assert asked(CLAIM, ["nothing"], [100], runs=0) == []


def test_a_claim_beside_an_older_worker_reads_what_it_takes(full: Database, asked: Callable[..., list[tuple[Any, ...]]]) -> None:
    full.query("INSERT INTO reproq_coexistence DEFAULT VALUES")
    try:
        assert len(asked(CLAIM, ["default"], [100], runs=100 + 200)) == 100  # and the entries of the claims before
        assert len(asked(CLAIM, ["rare", "default"], [10, 10], runs=20 + 300)) == 20
        asked("SELECT reproq_tell_older(100)", runs=0)
    finally:
        full.query("DELETE FROM reproq_coexistence")


@pytest.mark.parametrize("limits", [["task:other"], ["task:app.task"], ["queue:default"], ["queue:default", "task:other", "task:app.task"]])
def test_a_claim_beside_rates_reads_what_it_takes(full: Database, asked: Callable[..., list[tuple[Any, ...]]], limits: list[str]) -> None:
    full.query("INSERT INTO rate_limits SELECT key, 1, 1000, 1000 FROM unnest(%s::text[]) key", limits)
    try:
        assert len(asked(CLAIM, ["default"], [100], runs=100 + 200)) == 100  # and the entries of the claims before
    finally:
        full.query("DELETE FROM rate_limits WHERE key <> 'global'")
        full.query("DELETE FROM reproq_rate_reviews")


def test_the_review_of_rates_reads_its_batch(full: Database, asked: Callable[..., list[tuple[Any, ...]]]) -> None:
    full.query("INSERT INTO reproq_rate_reviews (key) VALUES ('task:x')")
    assert asked("SELECT reproq_review_rates(100)", runs=10) == [(False,)]
    assert full.query("SELECT 1 FROM reproq_rate_reviews") == []


def test_the_rest_of_a_cycle_reads_what_it_writes(asked: Callable[..., list[tuple[Any, ...]]]) -> None:
    rows = asked(CLAIM, ["default"], [100], runs=100 + 100)
    runs, numbers = [row[0] for row in rows], [row[1] for row in rows]
    assert asked("SELECT * FROM reproq_renew('w', 60, %s::bigint[], %s::bigint[])", runs, numbers, runs=100) == []
    assert asked("SELECT * FROM reproq_show('w', %s::bigint[], %s::bigint[], %s::float8[])", runs, numbers, [1.0] * 100, runs=100) == []
    end = "SELECT * FROM reproq_end('w', %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::float8[], %s::float8[], %s::text[])"
    nothing = [None] * 50
    for outcome, half in (("succeed", slice(0, 50)), ("fail", slice(50, 100))):
        parts = (runs[half], numbers[half], [outcome] * 50, ["{}"] * 50, nothing, nothing, nothing)
        assert len(asked(end, *parts, runs=50)) == 50


def test_the_keepers_duties_read_what_they_take(asked: Callable[..., list[tuple[Any, ...]]]) -> None:
    asked(CLAIM, ["default"], [100], runs=100 + 100)
    assert asked("SELECT reproq_reclaim(100)", runs=300) == [(0,)]  # every lease that there is
    assert asked("SELECT reproq_release_workers('{w}', 40)", runs=300) == [(40,)]
    ((woken, next_s),) = asked("SELECT woken, next_due_s FROM reproq_wake_due(100)", runs=0)
    assert woken == 0
    assert next_s > 0


def test_a_cancel_reads_what_it_cancels(asked: Callable[..., list[tuple[Any, ...]]]) -> None:
    ids = [row[0] for row in asked(CLAIM, ["default"], [2], runs=2 + 200)]
    assert len(asked("SELECT * FROM reproq_cancel(%s::bigint[])", [*ids, ids[-1] + 1], runs=3)) == 3


@pytest.fixture
def pinned(database: Database) -> Iterator[Database]:
    """A database in which somebody has left a transaction open, so that nothing that is dead goes away."""
    with database.connect(autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1 FROM task_runs")
        yield database


@pytest.fixture
def worn(pinned: Database) -> Database:
    """The same after 20,000 runs were claimed and ended, with 500 left."""
    with pinned.connect() as connection:
        connection.execute(INSERT, {"kind": "ready", "count": 20_500})
        connection.execute("UPDATE task_lane SET queue_name = 'default'")
        connection.execute(
            """CREATE FUNCTION wear_out() RETURNS void LANGUAGE plpgsql AS $$
               BEGIN
                   FOR round IN 1 .. 20 LOOP
                       PERFORM reproq_end('w', array_agg(result_id), array_agg(lease_no), array_agg('succeed'::text), NULL)
                       FROM reproq_claim('w', 60, '{default}', '{1000}') WHERE what = 'claimed';
                   END LOOP;
               END $$"""
        )
        connection.execute("SELECT wear_out()")
    return pinned


def test_a_claim_that_begins_where_the_last_one_ended_passes_no_dead_entries(worn: Database) -> None:
    statement = """SELECT what, order_key, due_at, result_id
                   FROM reproq_claim('w', 60, '{default}', '{50}', ARRAY[%s::float8], ARRAY[%s::timestamptz], ARRAY[%s::bigint])"""
    with worn.connect(autocommit=False) as connection:
        reads = Reads(connection)
        place: tuple[Any, ...] = (None, None, None)
        read = []
        for _ in range(3):
            before = reads.entries()
            rows = connection.execute(statement, place).fetchall()
            read.append(reads.entries() - before)
            assert [row[0] for row in rows] == ["claimed"] * 50 + ["looked"]
            place = rows[-1][1:]
    assert read[0] > 20_000
    assert max(read[1:]) < 1000


def test_a_shard_goes_on_where_it_was_and_still_finds_what_is_urgent(worn: Database) -> None:
    shard = Shard(worn.dsn)
    with ended(shard):
        shard.claim(10)
        shard.claim(10)
        assert shard.store._looks.rest_s(0.0) is not None, "the look from the start was dear"
        worn.query("INSERT INTO task_runs (priority, spec_json, spec_hash, task_path) VALUES (1000000, '{}', 'urgent', 'app.urgent')")
        paths = eventually(lambda: [c.task_path for c in shard.claim(1) if c.task_path == "app.urgent"], what="the urgent run")
        assert paths == ["app.urgent"]
        eventually(lambda: shard.claim(100) == () and shard.settle_idle() > 0, what="the queue is empty")
        assert shard.settle_idle() < 60, "the next look from the start is not forgotten over a long sleep"
