"""Working off a backlog reads a few rows and pages for every run, whatever the statistics say and however plans are made."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from reproq_supervisor.core.runs import Claimed, Ending, Outcome, RunId, RunStatus
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.store.actors import Keeper, Shard, ended
from tests.support.eventually import eventually
from tests.support.postgres import Database

BACKLOG = 2000
BATCH = 100
HISTORY = 50_000

_HISTORY = """
INSERT INTO task_runs (spec_json, spec_hash, task_path, status, finished_at, dedupe_key)
SELECT '{"task_path": "app.task"}', n::text, 'app.task', 'SUCCESSFUL', now(), NULL FROM generate_series(1, %s) n
"""
_READS = """
SELECT sum(seq_scan) FILTER (WHERE is_large)::int, sum(seq_tup_read) FILTER (WHERE is_large)::int, sum(coalesce(idx_tup_fetch, 0))::int,
       sum(heap_blks_hit + heap_blks_read)::int, sum(coalesce(idx_blks_hit, 0) + coalesce(idx_blks_read, 0))::int
FROM pg_stat_user_tables JOIN pg_statio_user_tables USING (relid)
CROSS JOIN LATERAL (SELECT relid = ANY ('{task_runs,task_lane}'::regclass[]) AS is_large) size
WHERE relid = ANY ('{task_runs,task_lane,reproq_flow_ends,reproq_key_arrivals,workflow_runs,rate_limits}'::regclass[])
"""
_OURS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'reproq%'"


class Reads(NamedTuple):
    """What was read of record and lane."""

    scans: int
    scanned_rows: int
    fetched_rows: int
    heap_pages: int
    index_pages: int


def fresh(database: Database) -> None:
    """Never analysed, never vacuumed."""


def analysed_while_empty(database: Database) -> None:
    database.query("VACUUM ANALYZE")


def emptied(database: Database) -> None:
    """It was large, was analysed then, and was emptied and vacuumed."""
    put(database, 5000)
    database.query("VACUUM ANALYZE")
    database.query("DELETE FROM task_runs")
    database.query("VACUUM ANALYZE")


def with_a_history(database: Database) -> None:
    database.query(_HISTORY, HISTORY)
    database.query("VACUUM ANALYZE")


def with_a_history_that_statistics_do_not_know(database: Database) -> None:
    analysed_while_empty(database)
    database.query(_HISTORY, HISTORY)


def analysed_while_all_was_running(database: Database) -> None:
    """The statistics say that every lane row has a lease and no record has ended."""
    put(database, 3000)
    shard = Shard(database.dsn, "earlier")
    with ended(shard):
        claimed = [run for _ in range(3) for run in shard.claim(1000)]
        database.query("VACUUM ANALYZE")
        shard.cycle(endings=tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"null") for c in claimed))


STATES = (fresh, analysed_while_empty, emptied, with_a_history, with_a_history_that_statistics_do_not_know, analysed_while_all_was_running)


def put(database: Database, count: int) -> None:
    with database.connect() as connection:
        enqueue(connection, [NewRun("app.task", [n]) for n in range(count)])


@pytest.fixture
def planned(database: Database) -> Database:
    """A database in which nothing gathers statistics or cleans up but the test."""
    with database.connect() as connection:
        for table in ("task_runs", "task_lane", "reproq_cancel_requests", "reproq_queue_idle"):
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    return database


@pytest.fixture
def reads_of(planned: Database) -> Iterator[Callable[[Callable[[], None]], Reads]]:
    """Says what our sessions read during a call, which opens and ends them all."""

    def told() -> Reads:
        eventually(lambda: not planned.query(_OURS), what="every session has ended, and reported")
        ((scans, scanned, fetched, heap, index),) = planned.query(_READS)
        return Reads(scans, scanned, fetched, heap, index)

    def measure(call: Callable[[], None]) -> Reads:
        before = told()
        call()
        after = told()
        return Reads(*(late - early for late, early in zip(after, before, strict=True)))

    yield measure


class Crew:
    """A shard and a keeper with sessions of their own."""

    def __init__(self, database: Database) -> None:
        self.shard, self.keeper = Shard(database.dsn, application_name="reproq"), Keeper(database.dsn)
        self.done = 0
        self._released: set[int] = set()

    def turn(self, claimed: tuple[Claimed, ...]) -> tuple[Claimed, ...]:
        """End *claimed*, after some of what happens to runs and with every duty in between, and claim more."""
        leases = tuple((c.result_id, c.lease_no) for c in claimed)
        assert self.shard.cycle(renew=leases[:10], watch=tuple(run for run, _ in leases)).lost == frozenset()
        assert self.shard.held(*claimed) == set(leases)
        for each in claimed[:3]:
            self.shard.show(each)
        endings = tuple(Ending(c.result_id, c.lease_no, self._outcome_of(c), b'{"kind": "app_error"}', 0.0, 0.01) for c in claimed)
        reply = self.shard.cycle(endings=endings, claims=(("default", BATCH), ("nothing", 1)))
        self.done += sum(status == "SUCCESSFUL" for status in reply.ended.values())
        self._sent_again(endings, reply.ended)
        for duty in (self.keeper.store.wake_due, self.keeper.store.reclaim, self.keeper.store.settle_wishes):
            self.keeper.run(duty())
        self.keeper.run(self.keeper.store.release_workers(["dead"]))
        self.keeper.run(self.keeper.store.holders(["dead"]))
        return reply.claimed

    def _sent_again(self, endings: tuple[Ending, ...], told: dict[RunId, RunStatus]) -> None:
        """A reply was lost: the endings that were final are told again."""
        final = tuple(e for e in endings if told[e.result_id] == "SUCCESSFUL")[:5]
        assert len(self.shard.cycle(endings=final).ended) == len(final)

    def _outcome_of(self, claimed: Claimed) -> Outcome:
        """One in ten fails once, one in ten is given back once."""
        match claimed.result_id % 10:
            case 0 if claimed.attempt == 1:
                return Outcome.FAIL
            case 1 if claimed.result_id not in self._released:
                self._released.add(claimed.result_id)
                return Outcome.RELEASE
            case _:
                return Outcome.SUCCEED

    def work_off(self, database: Database) -> None:
        """Make every plan while there is nothing, then work a backlog off with those plans."""
        with ended(self.shard, self.keeper):
            for _ in range(7):
                assert self.turn(()) == ()
            put(database, BACKLOG)
            claimed = self.turn(())
            while claimed:
                claimed = self.turn(claimed)
        assert self.done == BACKLOG


def assert_bounded(reads: Reads) -> None:
    assert reads.scans == 0
    assert reads.fetched_rows < 25 * BACKLOG
    assert reads.heap_pages < 35 * BACKLOG
    assert reads.index_pages < 35 * BACKLOG


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_a_backlog_is_worked_off_by_reading_what_is_written(
    planned: Database, reads_of: Callable[[Callable[[], None]], Reads], state: Callable[[Database], None]
) -> None:
    state(planned)
    assert_bounded(reads_of(lambda: Crew(planned).work_off(planned)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_it_does_not_matter_how_long_plans_are_kept(planned: Database, reads_of: Callable[[Callable[[], None]], Reads], mode: str) -> None:
    analysed_while_empty(planned)
    planned.query(f"ALTER DATABASE {planned.name} SET plan_cache_mode = {mode}")
    assert_bounded(reads_of(lambda: Crew(planned).work_off(planned)))


def plain(database: Database, count: int) -> None:
    put(database, count)


def members(database: Database, count: int) -> None:
    """Half of them of one workflow, the others of many small ones."""
    database.query(
        """WITH flows AS (SELECT n, gen_random_uuid() AS id, CASE n WHEN 0 THEN %(count)s / 2 ELSE 10 END AS size
                          FROM generate_series(0, %(count)s / 20) n),
           runs AS (INSERT INTO task_runs (spec_json, spec_hash, task_path, status, wait_count, workflow_id, dedupe_key)
                    SELECT '{"task_path": "app.task"}', m::text, 'app.task', CASE m WHEN 0 THEN 'WAITING' ELSE 'READY' END,
                           CASE m WHEN 0 THEN f.size ELSE 0 END, f.id, NULL
                    FROM generate_series(0, %(count)s / 2) m JOIN flows f ON m <= f.size ORDER BY m > 0, f.n, m
                    RETURNING result_id, workflow_id, status)
           INSERT INTO workflow_runs (workflow_id, expected_count, callback_result_id)
           SELECT f.id, f.size, r.result_id FROM flows f JOIN runs r ON r.workflow_id = f.id AND r.status = 'WAITING'""".replace(
            "%(count)s", str(count)
        )
    )


def rated(database: Database, count: int) -> None:
    """All of one rate, whose bucket is never empty."""
    database.query("INSERT INTO rate_limits VALUES ('queue:default', 1e9, 1000000, 1000000) ON CONFLICT DO NOTHING")
    put(database, count)


def keyed(database: Database, count: int) -> None:
    """All of one key, which admits a batch."""
    with database.connect() as connection:
        enqueue(connection, [NewRun("app.task", [n], concurrency_key="hot", concurrency_limit=BATCH) for n in range(count)])


@pytest.mark.slow
@pytest.mark.parametrize("produce", [plain, members, rated, keyed], ids=lambda produce: produce.__name__)
def test_the_last_of_a_large_backlog_costs_what_the_first_did_under_an_open_transaction(
    planned: Database, reads_of: Callable[[Callable[[], None]], Reads], produce: Callable[[Database, int], None]
) -> None:
    part, parts = 4000, 5
    produce(planned, part * parts)
    for table in ("reproq_flow_ends", "reproq_key_arrivals", "workflow_runs", "rate_limits"):
        planned.query(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")

    def claim_part() -> None:
        shard = Shard(planned.dsn)
        with ended(shard):
            claimed: tuple[Claimed, ...] = ()
            for _ in range(part // BATCH):
                endings = tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"null") for c in claimed)
                claimed = shard.cycle(endings=endings, claims=(("default", BATCH),)).claimed
                assert len(claimed) == BATCH
            shard.cycle(endings=tuple(Ending(c.result_id, c.lease_no, Outcome.SUCCEED, b"null") for c in claimed))

    with planned.connect(autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT FROM task_runs")
        read = [reads_of(claim_part) for _ in range(parts)]
    assert planned.query("SELECT count(*) FROM task_runs WHERE status = 'SUCCESSFUL'") == [(part * parts,)]
    pages = [each.heap_pages + each.index_pages for each in read]
    assert max(pages) < 1.4 * pages[0], pages
