"""What the database remarks while a duty runs: a row that it refuses to end, to expire or to delete, and why. The others went on."""

from reproq_supervisor.keeper.duties import Tell

MOST = 5
"""Of one run of a duty: a cause that hits one row tends to hit hundreds."""


class Remarks:
    """Passes them on as events, a few of each run."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._count = 0

    def take(self, words: str) -> None:
        """Take in one."""
        self._count += 1
        if self._count <= MOST:
            self._tell({"name": "database.warned", "message": words})

    def end_run(self) -> None:
        """Say how many of the run of a duty that has ended were not passed on."""
        if self._count > MOST:
            self._tell({"name": "database.warned", "message": f"and {self._count - MOST} more like these; the server's log has all"})
        self._count = 0
