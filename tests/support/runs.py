"""Enqueue task runs and look at what became of them."""

import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.enqueue import NewRun, enqueue
from tests.support.eventually import eventually
from tests.support.postgres import Database

DEMO = "workers.demo.tasks."
ODD = "tests.support.odd_tasks."
SHARED = "tests.support.shared_tasks."

_LOOK = """
    SELECT r.result_id, r.status, r.attempts, coalesce(r.return_json, 'null'), coalesce(r.errors_json, '[]'),
           r.logs_uri, coalesce(l.state, '')
    FROM task_runs r LEFT JOIN task_lane l USING (result_id) WHERE r.result_id = ANY (%s) ORDER BY r.result_id
"""

_COPY = """
    INSERT INTO task_runs (queue_name, spec_json, spec_hash, task_path, max_attempts, timeout_seconds)
    SELECT queue_name, spec_json, replace(gen_random_uuid()::text, '-', ''), task_path, max_attempts, timeout_seconds
    FROM generate_series(1, %s), task_runs WHERE result_id = %s
    RETURNING result_id
"""


@dataclass(frozen=True)
class Run:
    """A record and the state of its lane row ('' when it has none)."""

    result_id: RunId
    status: str
    attempts: int
    result: Any
    errors: list[dict[str, Any]]
    logs_uri: str | None
    lane: str

    @property
    def end(self) -> tuple[str, str | None, int]:
        """(status, kind of the last error, attempts): what most tests ask for."""
        return self.status, self.errors[-1]["kind"] if self.errors else None, self.attempts

    @property
    def message(self) -> str:
        """What the last error says."""
        return str(self.errors[-1]["message"])

    @property
    def log(self) -> str:
        """What the last attempt wrote."""
        return Path(self.logs_uri).read_text(errors="replace") if self.logs_uri else ""


class Runs:
    """The runs of one test's database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, task: str, *args: Any, count: int = 1, **options: Any) -> list[RunId]:
        """Enqueue *count* runs of *task*; a name without dots is one of the demo's. *options* are those of `NewRun`."""
        path = task if "." in task else DEMO + task
        with self.database.connect() as connection:
            return enqueue(connection, [NewRun(path, args=args, **options) for _ in range(count)])

    def add_spec(self, spec: str, **columns: Any) -> list[RunId]:
        """Insert one run by plain SQL, as a producer that knows nothing of us: *spec* is JSON text."""
        names = ["spec_json", "spec_hash", *columns]
        statement = sql.SQL("INSERT INTO task_runs ({}) VALUES ({}) RETURNING result_id").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join([sql.Placeholder()] * len(names))
        )
        with self.database.connect() as connection:
            return [row[0] for row in connection.execute(statement, [spec, uuid.uuid4().hex, *columns.values()])]

    def add_copies(self, task: str, *args: Any, count: int) -> list[RunId]:
        """Enqueue *count* runs with the same large arguments, which travel to the server once."""
        (first,) = self.add(task, *args)
        copied = self.database.query(_COPY, count - 1, first)
        return [first, *(row[0] for row in copied)]

    def look(self, ids: Iterable[RunId]) -> list[Run]:
        """Return these runs as they are now."""
        return [Run(*row) for row in self.database.query(_LOOK, list(ids))]

    def ended(self, ids: Iterable[RunId], timeout: float = 30.0) -> list[Run]:
        """Wait until all of these runs have ended, and return them."""
        wanted = list(ids)

        def all_ended() -> list[Run]:
            self.wake()
            runs = self.look(wanted)
            open_runs = Counter((run.status, run.lane, run.attempts) for run in runs if run.lane)
            assert not open_runs, f"open: {dict(open_runs)}"
            return runs

        return eventually(all_ended, timeout=timeout, what=f"{len(wanted)} runs end", interval=0.05)

    def end_of(self, task: str, *args: Any, timeout: float = 30.0, **options: Any) -> Run:
        """Enqueue one run and return it when it has ended."""
        return self.ended(self.add(task, *args, **options), timeout)[0]

    def wake(self) -> None:
        """Make retries ready that are due, as the keeper does."""
        self.database.query("SELECT woken FROM reproq_wake_due(1000)")

    def cancel(self, ids: Iterable[RunId]) -> None:
        """Ask for these runs to be cancelled, as the command line does."""
        self.database.query("SELECT outcome FROM reproq_cancel(%s)", list(ids))

    def reclaim(self) -> int:
        """End attempts whose lease has expired, as the keeper does; return how many."""
        return int(self.database.query("SELECT reproq_reclaim(1000)")[0][0])

    def release(self, worker_id: str) -> int:
        """Give back what a dead worker held, as the keeper does; return how many."""
        return int(self.database.query("SELECT reproq_release_workers(%s, 1000)", [worker_id])[0][0])

    def lane(self) -> dict[str, int]:
        """Return how many runs have not ended, by state of the lane."""
        return dict(self.database.query("SELECT state, count(*) FROM task_lane GROUP BY 1"))
