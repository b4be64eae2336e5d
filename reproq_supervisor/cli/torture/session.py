"""The command's conversation with the database, which chaos may kill meanwhile."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self, TypeVar

from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store import commands, torture
from reproq_supervisor.store.commands import RunView
from reproq_supervisor.store.connect import Connection, connected
from reproq_supervisor.store.enqueue import NewRun
from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.torture import RunOutcome

T = TypeVar("T")

# Asked several times a second: a database that is away is asked again soon.
_CONNECT_WITHIN_S = 2.0
_BACK_WITHIN_S = 60.0
_PAUSE_S = 0.2


class Session:
    """What is asked about the runs that this session enqueued. A connection that breaks is made again by the next question.

    Raises:
      StoreUnavailable: by every question that has no answer for it, while the database is away.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stack = ExitStack()
        self._connection: Connection | None = None
        self._runs: list[RunId] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._drop()

    def enqueue(self, runs: Sequence[NewRun]) -> list[RunId]:
        """Enqueue all of *runs*, or none; return their ids."""
        ids = self._ask(lambda connection: commands.enqueue(connection, runs))
        self._runs += ids
        return ids

    def result(self, run: RunId) -> RunView | None:
        """Return one run as readers see it."""
        return self._ask(lambda connection: commands.result(connection, run))

    def open_count(self, runs: Sequence[RunId]) -> int | None:
        """Return how many of *runs* have not ended; None while the database is away."""
        try:
            return self._ask(lambda connection: torture.open_count(connection, runs))
        except StoreUnavailable:
            return None

    def outcomes(self, runs: Sequence[RunId]) -> dict[RunId, RunOutcome]:
        """Return what became of *runs*."""
        return self._ask_patiently(lambda connection: torture.outcomes(connection, runs))

    def cancel_open(self) -> int | None:
        """Cancel everything that has not ended, so that nothing is left in somebody's queues.

        Returns:
          how many that were; None if the database is away.
        """
        try:
            return self._ask(lambda connection: torture.cancel_open(connection, self._runs))
        except StoreUnavailable:
            return None

    def remove(self) -> None:
        """Remove all records."""
        self._ask_patiently(lambda connection: torture.remove(connection, self._runs))

    def _ask_patiently(self, question: Callable[[Connection], T]) -> T:
        """Ask until there is an answer, for as long as a killed database may take to come back."""
        deadline = time.monotonic() + _BACK_WITHIN_S
        while True:
            try:
                return self._ask(question)
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _ask(self, question: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._stack.enter_context(
                connected(self._dsn, application_name="reproq torture", timeout_s=_CONNECT_WITHIN_S)
            )
        try:
            return question(self._connection)
        except StoreUnavailable:
            self._drop()
            raise

    def _drop(self) -> None:
        self._connection = None
        self._stack.close()
