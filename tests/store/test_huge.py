"""One claim touches a bounded number of pages, beside a million rows of every kind and under an old snapshot, without any statistics.

``REPROQ_HUGE_ROWS`` sets the size of the waiting part and of the history: a tenth of a million here, the whole by ``make huge``.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.support.postgres import Cluster, Database

ROWS = int(os.environ.get("REPROQ_HUGE_ROWS", "100000"))
BATCH = 100
PAGES_PER_CLAIM = 50 * BATCH
"""A claim of 100 took 1,920 pages beside a hundred thousand rows of each kind, 2,120 beside a million (a look through an index passes
three or four); the first of a session, which reads the catalogue and plans, 3,830 and 4,030."""

# Straight into both tables: through the trigger, which other tests hold to the same result, a million take four times as long.
_RECORDS = """
INSERT INTO task_runs (result_id, queue_name, spec_json, spec_hash, task_path, status, finished_at, run_after, lock_key, dedupe_key)
SELECT n, 'default', '{"task_path": "app.task"}', n::text, 'app.task', %(status)s, CASE WHEN %(status)s = 'SUCCESSFUL' THEN now() END,
       now() + %(delay)s::interval, %(lock_key)s, NULL
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
_LANE = """
INSERT INTO task_lane (result_id, queue_name, state, park_reason, priority, order_key, due_at, max_attempts, timeout_seconds,
                       lock_name, on_key)
SELECT n, 'default', CASE WHEN %(reason)s::text IS NULL THEN 'ready' ELSE 'parked' END, %(reason)s, 0,
       reproq_order_key(now() + %(delay)s::interval, 0, 60) + n * 1e-6, now() + %(delay)s::interval, 3, 900,
       reproq_lock_name(%(lock_key)s), CASE WHEN %(reason)s = 'key' THEN reproq_lock_name(%(lock_key)s) END
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
START = ("-infinity", "-infinity", 0)
_HOLD = """
UPDATE task_lane
SET state = 'running', park_reason = NULL, on_key = NULL, leased_by = 'holder', lease_no = 1, leased_until = 'infinity'
WHERE result_id = %s
"""
_CLAIM = "SELECT * FROM reproq_claim(%s, 60, '{default}', '{100}', ARRAY[%s::float8], ARRAY[%s::timestamptz], ARRAY[%s::bigint])"
_END = "SELECT * FROM reproq_end(%s, %s::bigint[], %s::bigint[], array_fill('succeed'::text, ARRAY[cardinality(%s::bigint[])]), NULL)"


@pytest.fixture(scope="module")
def huge(cluster: Cluster) -> Iterator[Database]:
    """A database with all of it, statistics that nobody has gathered, and a transaction that somebody has left open."""
    from reproq_supervisor.store.migrate import migrate

    with cluster.new_database(cluster.ensure_template(migrate)) as database, database.connect() as connection:
        for table in ("task_runs", "task_lane"):
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        connection.execute("SET session_replication_role = replica")
        first = 1
        for status, count, reason, delay, lock_key in (
            ("SUCCESSFUL", ROWS, None, "0", None),
            ("READY", ROWS, None, "0", None),
            ("READY", ROWS // 10, "key", "-1 h", "full"),
            ("READY", ROWS // 10, "due", "7 d", None),
        ):
            parts = {"first": first, "last": first + count - 1, "status": status, "reason": reason, "delay": delay, "lock_key": lock_key}
            connection.execute(_RECORDS, parts)
            if status == "READY":
                connection.execute(_LANE, parts)
            first += count
        connection.execute(_HOLD, (2 * ROWS + 1,))
        connection.execute("SELECT setval('reproq_lease_seq', 10)")
        assert connection.execute("SELECT * FROM reproq_check_invariant(0)").fetchall() == []
        assert connection.execute("SELECT reltuples FROM pg_class WHERE oid = 'task_lane'::regclass").fetchone() == (-1,)
        with database.connect(autocommit=False) as holder:
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT FROM task_runs LIMIT 1")
            yield database


@dataclass
class Explained:
    """One session that reports for each statement its pages, and every plan that it was carried out by."""

    connection: psycopg.Connection[Any]
    plans: list[str]

    def pages(self, statement: str, *parameters: object) -> int:
        """Run *statement* and return how many pages it touched, those of the functions that it calls included."""
        explained = self.connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode(), parameters).fetchone()
        assert explained is not None
        (told,) = explained[0] if not isinstance(explained[0], str) else json.loads(explained[0])
        return sum(int(told["Plan"][f"Shared {kind} Blocks"]) for kind in ("Hit", "Read"))


@pytest.fixture
def explained(huge: Database) -> Iterator[Explained]:
    plans: list[str] = []
    with huge.connect() as connection:
        connection.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
        connection.execute("LOAD 'auto_explain'")
        for name, value in {
            "auto_explain.log_min_duration": "0",
            "auto_explain.log_nested_statements": "on",
            "auto_explain.log_level": "notice",
        }.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield Explained(connection, plans)


def assert_looked_up(plans: list[str]) -> None:
    """No plan reads one of the two large tables as a whole, or builds a table of it in memory."""
    assert any("task_lane_ready" in plan for plan in plans), "the plans of nested statements are told"
    for plan in plans:
        assert not re.search(r"Seq Scan on (task_runs|task_lane)|Hash Join|Merge Join", plan), plan


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_claim_touches_a_bounded_number_of_pages(huge: Database, explained: Explained) -> None:
    place: tuple[object, ...] = START
    pages = []
    for _ in range(30):
        pages.append(explained.pages(_CLAIM, "w", *place))
        ((*last,),) = huge.query(
            """SELECT order_key, due_at, result_id FROM task_lane
               WHERE leased_by = 'w' ORDER BY order_key DESC, due_at DESC, result_id DESC LIMIT 1"""
        )
        # As a shard does after a dear look: see store/looks.py.
        place = tuple(last)
        ((ids, numbers),) = huge.query("SELECT array_agg(result_id), array_agg(lease_no) FROM task_lane WHERE leased_by = 'w'")
        assert len(ids) == BATCH
        pages.append(explained.pages(_END, "w", ids, numbers, ids))
    assert max(pages) <= PAGES_PER_CLAIM, pages
    assert_looked_up(explained.plans)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_freeing_the_full_key_touches_as_few(explained: Explained) -> None:
    claim = explained.pages(_CLAIM, "other", *START)
    others = [
        explained.pages(_END, "holder", [2 * ROWS + 1], [1], [1]),
        explained.pages("SELECT reproq_settle_keys(100)"),
        explained.pages("SELECT reproq_wake_due(1000)"),
    ]
    assert claim <= PAGES_PER_CLAIM + 10_000, "from the start, over what the other test may have claimed before"
    assert max(others) <= 1500, f"the first end of a session, which reads the catalogue and plans, took 1,030: {others}"
    assert_looked_up(explained.plans)
