"""Which ended runs an operator means: by queue, task, kind of error, time and status."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reproq_supervisor.core.runs import RunStatus


@dataclass(frozen=True, slots=True)
class Ago:
    """A moment, counted back from now by the database's clock."""

    seconds: float


Moment = datetime | Ago


@dataclass(frozen=True, slots=True)
class Filter:
    """What a run must be to be meant. None lets everything pass.

    Attributes:
      task: its task path, where `*` stands for any characters and `?` for one.
      kind: of its last error.
      since: it ended (a run that has not: it was enqueued) then or later; `until`: before.
    """

    statuses: tuple[RunStatus, ...] = (RunStatus.FAILED,)
    queue: str | None = None
    task: str | None = None
    kind: str | None = None
    since: Moment | None = None
    until: Moment | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the filter as the statements take it."""
        return {
            "statuses": [str(status) for status in self.statuses],
            "queue": self.queue,
            "task_like": None if self.task is None else like_of_glob(self.task),
            "kind": self.kind,
            "since_at": self.since if isinstance(self.since, datetime) else None,
            "since_s": self.since.seconds if isinstance(self.since, Ago) else None,
            "until_at": self.until if isinstance(self.until, datetime) else None,
            "until_s": self.until.seconds if isinstance(self.until, Ago) else None,
        }


def like_of_glob(glob: str) -> str:
    r"""Return the pattern of LIKE for a glob with `*` and `?`; whatever means something to LIKE alone (`%`, `_`, `\`) stands for itself."""
    literal = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return literal.replace("*", "%").replace("?", "_")
