"""Where the tasks of an executor may complete themselves, and what a context says that cannot do what it was asked."""

from dataclasses import dataclass

from reproq_supervisor.process.secret import read_secret


class ContextError(RuntimeError):
    """A context cannot do what it was asked here, or not any more; the message says why."""


@dataclass(frozen=True, slots=True)
class TaskDatabase:
    """The database that tasks get a connection to when they ask for one.

    Attributes:
      leased_by: who holds the leases of the runs here.
      dsn_fd: where its libpq URL is read from; None where tasks have none. It is read when a task asks, and kept nowhere.
    """

    leased_by: str
    dsn_fd: int | None

    def read_dsn(self) -> str:
        """Return the libpq URL.

        Raises:
          ContextError: tasks of this pool have no database.
        """
        if self.dsn_fd is None:
            raise ContextError("completing: expected a database for the tasks of this pool, got none; set task_database of the pool")
        return read_secret(self.dsn_fd)


NO_DATABASE = TaskDatabase("", None)
