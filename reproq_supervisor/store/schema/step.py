"""What a migration is made of: a step, and the means with which it is taken."""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from reproq_supervisor.store.errors import StoreUnavailable
from reproq_supervisor.store.statements import load

T = TypeVar("T")
Connection = psycopg.Connection[Any]

# A lock that is asked for stands in the queue before every later producer: ask for a short time, then let them through.
LOCK_TIMEOUT = "250ms"
# Before that, the right to change a table: whoever waits for it keeps no producer waiting, and autovacuum gives way to nobody who does not
# wait for it a whole second.
RIGHT_TIMEOUT = "10s"
# A change of the catalogue takes milliseconds. One that would take longer than producers may wait, because it rewrites something after all,
# is not done.
CHANGE_TIMEOUT = "700ms"
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_IN_THE_WAY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.QueryCanceled,
    # Somebody inserted the run that a batch was about to make the owner of its key; the next look sees it.
    psycopg.errors.UniqueViolation,
)


@dataclass
class Work:
    """One migration under way.

    Args:
      tell: takes words on the progress of the present step.
      patience_s: how long to come back for a lock that somebody else holds.
    """

    connection: Connection
    tell: Callable[[str], None]
    patience_s: float = 600

    def change(self, table: str, action: Callable[[Connection], T], *, timeout: str = CHANGE_TIMEOUT) -> T:
        """Change the catalogue of *table* by *action*, as `commit` does; autovacuum of the table gives way."""

        def enter(connection: Connection) -> None:
            connection.execute(load("migrating")["limit_waits"], {"lock": RIGHT_TIMEOUT, "statement": "0"})
            connection.execute(sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(sql.Identifier(table)))

        return self._commit(table, action, enter, timeout)

    def commit(self, action: Callable[[Connection], T]) -> T:
        """Do *action* in a transaction that never waits long for a lock; while one is held by others, come back later.

        Raises:
          StoreUnavailable: somebody was in the way for `patience_s`.
        """
        return self._commit("task_runs", action, lambda _: None, "0")

    def _commit(self, table: str, action: Callable[[Connection], T], enter: Callable[[Connection], None], timeout: str) -> T:
        deadline = time.monotonic() + self.patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                with self.connection.transaction():
                    self.connection.execute(load("reproq_schema_migrations")["pin_path"])
                    enter(self.connection)
                    self.connection.execute(load("migrating")["limit_waits"], {"lock": LOCK_TIMEOUT, "statement": timeout})
                    return action(self.connection)
            except _IN_THE_WAY as error:
                obstacle = self._obstacle(table, error)
                if time.monotonic() + pause_s > deadline:
                    raise StoreUnavailable(f"{table}: expected to be let in within {self.patience_s:.0f} s, got {obstacle}") from error
            self.tell(f"waits for {obstacle}")
            time.sleep(pause_s * random.uniform(0.7, 1.3))  # noqa: S311 - spread, not a secret
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.5)

    def _obstacle(self, table: str, error: psycopg.Error) -> str:
        holders = self.connection.execute(load("migrating")["holders"], {"table": table}).fetchall()
        named = ", ".join(f"pid {pid} ({name or 'no name'}, {state}, open for {open_s:.0f} s)" for pid, name, state, open_s in holders)
        return f"transactions that hold {table}: {named}" if named else f"another transaction ({error.sqlstate})"


class Step(ABC):
    """One thing to do, which can be taken again after any interruption.

    `name` and `locks` are for people; `version` is the number of a file, None for a step that is recognised by what it made.
    """

    version: int | None = None
    name: str
    locks: str

    # A step that only tidies up: the daemon runs without it.
    is_required: bool = True

    @abstractmethod
    def is_done(self, connection: Connection) -> bool:
        """Answer whether nothing is left to do; also when other steps, yet to come, will leave nothing."""

    @abstractmethod
    def take(self, work: Work) -> None:
        """Do it."""

    def estimate_s(self, rows: float) -> float:
        """Guess the seconds that it takes with *rows* records."""
        return 0.0
