"""Steps that make our indexes and drop those of older layouts, beside producers.

CREATE INDEX CONCURRENTLY that was cut off leaves an invalid index behind, which costs and serves nobody: it is dropped first. If its server
process still builds, since nobody told it that its client is gone, its end is waited for.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import closing
from dataclasses import dataclass

from psycopg import sql

from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.schema.coexistence import coexists_since
from reproq_supervisor.store.schema.lock import beside
from reproq_supervisor.store.schema.step import Connection, Step, Work
from reproq_supervisor.store.statements import load

# As benchmarks/migrate.py showed it on two busy cores.
_ROWS_PER_S = 500_000
_LOOK_EVERY_S = 1.0
_SMALL_PAGES_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Index:
    """What an index is over, as in CREATE INDEX … ON table …."""

    name: str
    table: str
    over: str
    is_unique: bool = False


# Few on purpose, and none that mentions a column that the last write of a run changes (only failures pay for theirs): see 001_contract.sql.
INDEXES = (
    Index("task_runs_dedupe", "task_runs", "(dedupe_key) WHERE dedupe_key IS NOT NULL", is_unique=True),
    Index("task_runs_failed", "task_runs", "(failed_at) WHERE failed_at IS NOT NULL"),
    Index("task_runs_workflow", "task_runs", "(workflow_id) WHERE workflow_id IS NOT NULL"),
    Index("task_runs_parent", "task_runs", "(parent_id) WHERE parent_id IS NOT NULL"),
    Index("task_runs_expiry", "task_runs", "(expires_at, result_id) WHERE expires_at IS NOT NULL"),
    Index("idx_periodic_tasks_next_run", "periodic_tasks", "(next_run_at) WHERE enabled = true"),
    Index("idx_workflow_runs_callback", "workflow_runs", "(callback_result_id)"),
)

# Of the lane, whose columns stand only after the files. A claim reads the front of the first and nothing else: what can run now. Leases
# go by number, not by leased_until: a renewal then touches no index, and the sweep for expired ones reads only what runs.
LANE_INDEXES = (
    Index("task_lane_ready", "task_lane", "(queue_name, order_key, due_at, result_id) WHERE state = 'ready'"),
    Index("task_lane_due", "task_lane", "(due_at, result_id) WHERE state = 'parked' AND park_reason = 'due'"),
    Index("task_lane_leases", "task_lane", "(lease_no, result_id) WHERE state = 'running'"),
    # By leased_by, not by state = 'running', which says the same: the planner would take the index of all leases for it instead.
    Index("task_lane_lock_holds", "task_lane", "(lock_name, hold_no) WHERE lock_name IS NOT NULL AND leased_by IS NOT NULL"),
    Index("task_lane_limit_holds", "task_lane", "(limit_name, hold_no) WHERE limit_name IS NOT NULL AND leased_by IS NOT NULL"),
    Index("task_lane_members", "task_lane", "(workflow_id, result_id) WHERE workflow_id IS NOT NULL"),
    Index("task_lane_waiting", "task_lane", "(result_id) WHERE state = 'waiting'"),
    Index("task_lane_on_key", "task_lane", "(on_key, queue_name, order_key, due_at, result_id) WHERE on_key IS NOT NULL"),
)

# It refuses two active runs of one hash even where nobody asked for deduplication; `dedupe_key` has taken its place.
OLDER_UNIQUE = "idx_task_runs_spec_unique"
# Of the Go layout, and of the Django layout before and after it renamed them. Each would make every end of a run write to it.
_OLDER = (
    *("idx_task_runs_claim", "idx_task_runs_claim_due", "idx_task_runs_lock_key", "idx_task_runs_concurrency_active"),
    *("idx_task_runs_parent_id", "idx_task_runs_workflow_id", "idx_task_runs_failed_at", "idx_task_runs_task_path"),
    *("task_runs_status_26197d_idx", "task_runs_queue_n_50e8d6_idx", "task_runs_conc_status_idx", "task_runs_parent_id_866fda04"),
    # Of earlier versions of ours.
    *("task_lane_workflow", "task_runs_expires", "task_lane_lock_holders", "task_lane_limit_holders"),
)
# By which an older worker chooses what it claims; kept, or made, while one works beside us.
COEXISTENCE_INDEXES = (
    Index("idx_task_runs_claim", "task_runs", "(queue_name, status, priority DESC, enqueued_at) WHERE status = 'READY'"),
    Index(
        "idx_task_runs_claim_due",
        "task_runs",
        "(queue_name, (coalesce(run_after, '-infinity'::timestamptz)), priority DESC, enqueued_at) WHERE status = 'READY'",
    ),
    Index("idx_task_runs_lock_key", "task_runs", "(lock_key) WHERE status = 'RUNNING'"),
    Index(
        "idx_task_runs_concurrency_active",
        "task_runs",
        "(concurrency_key, leased_until) WHERE status = 'RUNNING' AND concurrency_key IS NOT NULL",
    ),
)
_TABLES = ("task_runs", "task_lane", "periodic_tasks", "reproq_queue_controls", "reproq_workers")


def older_indexes(connection: Connection) -> Iterator[str]:
    """Name the indexes of older layouts that are still there and that nobody needs; not the unique one."""
    needed = {index.name for index in COEXISTENCE_INDEXES} if coexists_since(connection) else set()
    for table in _TABLES:
        for name, is_pattern in connection.execute(load("migrating")["indexes_of"], {"table": table}):
            if name in needed:
                continue
            if name in _OLDER or (is_pattern and name.endswith("_like")):
                yield name


class MakeIndex(Step):
    """One index that has to be there and be usable."""

    locks = "SHARE UPDATE EXCLUSIVE, which stops nobody; waits for transactions that are open"

    def __init__(self, index: Index) -> None:
        self.name = f"index {index.name}"
        self._index = index

    def is_done(self, connection: Connection) -> bool:
        return bool(_state(connection, self._index.name))

    def estimate_s(self, rows: float) -> float:
        return rows / _ROWS_PER_S if self._index.table == "task_runs" else 0.0

    def take(self, work: Work) -> None:
        _wait_for_abandoned(work, self._index.name)
        if _state(work.connection, self._index.name) is False:
            _drop(work, self._index.name)
        elif self.is_done(work.connection):
            return
        if _is_empty(work.connection, self._index.table):
            # Nobody waits for a table that holds nothing, and building concurrently would wait for everybody.
            work.change(self._index.table, lambda connection: connection.execute(self._statement(concurrently=False)))
        else:
            self._build(work)

    def _build(self, work: Work) -> None:
        """Build it in a thread, and tell meanwhile what the server says of it."""
        with ThreadPoolExecutor(1, thread_name_prefix="index") as thread:
            building = thread.submit(work.connection.execute, self._statement(concurrently=True))
            try:
                with closing(beside(work.connection)) as watcher:
                    while True:
                        try:
                            building.result(timeout=_LOOK_EVERY_S)
                        except StillRunning:
                            self._tell_phase(work, watcher)
                        else:
                            return
            finally:
                if not building.done():  # interrupted, or nobody can watch: the thread is waited for
                    work.connection.cancel_safe()

    def _tell_phase(self, work: Work, watcher: Connection) -> None:
        row = watcher.execute(load("migrating")["building"], {"table": self._index.table}).fetchone()
        if row:
            phase, share = row
            work.tell(phase if share is None else f"{phase}, {share:.0%}")

    def _statement(self, *, concurrently: bool) -> sql.Composed:
        return sql.SQL("CREATE {}INDEX {}{} ON {} {}").format(
            sql.SQL("UNIQUE " if self._index.is_unique else ""),
            sql.SQL("CONCURRENTLY " if concurrently else ""),
            sql.Identifier(self._index.name),
            sql.Identifier(self._index.table),
            sql.SQL(self._index.over),
        )


class MakeOlderIndex(MakeIndex):
    """One index of an older worker, which has to be there while it works beside us."""

    is_required = False

    def is_done(self, connection: Connection) -> bool:
        return coexists_since(connection) is None or super().is_done(connection)


class DropOlderUnique(Step):
    """The older index for deduplication goes when the newer one guards every run."""

    name = f"drop index {OLDER_UNIQUE}"
    locks = "SHARE UPDATE EXCLUSIVE, which stops nobody; waits for transactions that are open"

    def is_done(self, connection: Connection) -> bool:
        return _state(connection, OLDER_UNIQUE) is None

    def take(self, work: Work) -> None:
        _wait_for_abandoned(work, OLDER_UNIQUE)
        _drop(work, OLDER_UNIQUE)


class DropOlder(Step):
    """Indexes that older layouts needed and that make every end of a run dearer."""

    name = "drop older indexes"
    locks = "SHARE UPDATE EXCLUSIVE, which stops nobody; waits for transactions that are open"
    is_required = False

    def is_done(self, connection: Connection) -> bool:
        return next(older_indexes(connection), None) is None

    def take(self, work: Work) -> None:
        for name in list(older_indexes(work.connection)):
            work.tell(name)
            _wait_for_abandoned(work, name)
            _drop(work, name)


def _state(connection: Connection, name: str) -> bool | None:
    """Answer whether the index can be used; None when there is none."""
    row = connection.execute(load("migrating")["index"], {"index": name}).fetchone()
    return bool(row[0]) if row else None


def _is_empty(connection: Connection, table: str) -> bool:
    row = connection.execute(load("migrating")["estimate"], {"table": table}).fetchone()
    return row is not None and row[1] <= _SMALL_PAGES_BYTES


def _drop(work: Work, name: str) -> None:
    work.connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name)))


def _wait_for_abandoned(work: Work, name: str) -> None:
    deadline = time.monotonic() + work.patience_s
    while (row := work.connection.execute(load("migrating")["is_building"], {"index": name}).fetchone()) and row[0]:
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"index {name}: expected its builder to end within {work.patience_s:.0f} s, it still builds")
        work.tell("waits for a builder whose migration was cut off")
        time.sleep(_LOOK_EVERY_S)
