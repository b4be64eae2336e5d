"""The client for threads: everything an application asks of the queue."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from reproq_supervisor.client import questions
from reproq_supervisor.client.arguments import check_ids
from reproq_supervisor.client.database import find_database
from reproq_supervisor.client.options import seconds
from reproq_supervisor.client.result import TaskResult
from reproq_supervisor.client.waiting import ended_or_late, in_order, pauses
from reproq_supervisor.client.workflows import Workflow
from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.asking import Question, ask
from reproq_supervisor.store.commands import CancelOutcome, Stats
from reproq_supervisor.store.lending import Connections
from reproq_supervisor.store.triage import Retried

if TYPE_CHECKING:
    from reproq_supervisor.store.connect import Connection

T = TypeVar("T")


class Client:
    """Asks the database of a queue; for any number of threads, and made anew by nobody after a fork.

    Without *dsn* it takes DATABASE_URL, else what the commands would take. It connects with its first question, and keeps up to four idle
    connections until `close`.

    Every method that changes something takes *connection*: the caller's own psycopg connection, in whose transaction it then happens: with
    the caller's commit, or not at all.

    Raises, beside what each method says:
      StoreUnavailable: the database cannot be asked now; whether a change without *connection* has happened is not known.
      StoreError: it refused; nothing has happened.
    """

    def __init__(self, dsn: str | None = None) -> None:
        self._connections = Connections(find_database(dsn), "reproq client")

    def close(self) -> None:
        """Close the idle connections. The client can be used on, and connects again."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def enqueue(self, run: NewRun, *, connection: "Connection | None" = None) -> RunId:
        """Insert *run*, and return its id: that of an active run of the same content if it asks for `dedupe`."""
        return self.enqueue_many([run], connection=connection)[0]

    def enqueue_many(self, runs: Iterable[NewRun], *, connection: "Connection | None" = None) -> list[RunId]:
        """Insert all of *runs*, or none; return their ids in order."""
        return self._change(questions.enqueuing(list(runs)), connection)

    def begin(self, workflow: Workflow[T], *, connection: "Connection | None" = None) -> T:
        """Insert a workflow, whole, and return the ids of its runs; see `chain`, `group` and `chord`."""
        return self._change(workflow.beginning(), connection)

    def result(self, run: int) -> TaskResult:
        """Return the run as it is now.

        Raises:
          UnknownRunError: there is none.
        """
        return in_order(self.results([run]), check_ids([run]))[0]

    def results(self, runs: Iterable[int]) -> dict[RunId, TaskResult]:
        """Return those of *runs* that exist, by id."""
        return self._read(questions.reading(check_ids(runs)))

    def wait(self, run: int, timeout: float | timedelta | None = None) -> TaskResult:
        """Wait until the run has ended, but not longer than *timeout* seconds; return it.

        Raises:
          WaitTimeoutError: a TimeoutError; the run goes on.
          UnknownRunError: there is none.
        """
        return self.wait_all([run], timeout)[0]

    def wait_all(self, runs: Iterable[int], timeout: float | timedelta | None = None) -> list[TaskResult]:
        """Wait until all of *runs* have ended, and return them in order; raises as `wait`."""
        wanted, timeout_s = check_ids(runs), seconds(timeout)
        open_runs = self._read(questions.watching(wanted))
        for pause_s in pauses(timeout_s):
            if not open_runs:
                break
            time.sleep(pause_s)
            open_runs = self._read(questions.watching(sorted(open_runs)))
        return ended_or_late(in_order(self.results(wanted), wanted), timeout_s)

    def cancel(self, run: int, *, connection: "Connection | None" = None) -> CancelOutcome:
        """Cancel the run: one that waits ends at once, one that runs is asked to stop; return which it was."""
        return self._change(questions.cancelling([run], leaves_word=connection is not None), connection)[RunId(run)]

    def retry(self, run: int, *, connection: "Connection | None" = None) -> Retried:
        """Run a run once more that failed or was cancelled, as `triage retry` does; return what became of that."""
        return self._change(questions.retrying([run]), connection)[RunId(run)]

    def stats(self) -> Stats:
        """Return what is in every queue."""
        return self._read(questions.counting())

    def _change(self, question: Question[T], connection: "Connection | None") -> T:
        lent: AbstractContextManager[Connection] = nullcontext(connection) if connection is not None else self._connections.one()
        with lent as mine:
            return ask(mine, question)

    def _read(self, question: Question[T]) -> T:
        with self._connections.one() as connection:
            return ask(connection, question, atomic=False)
