"""What every contender can do: open an empty queue, enqueue many tasks or one, and run its workers."""

import importlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import psutil

from benchmarks.contenders.meter import Meter
from tests.support.postgres import Cluster, Database

MODULES = ("floor", "product", "pgqueuer", "procrastinate", "chancy", "celery", "dramatiq")
"""Of this package; each has `CONTENDERS`, by name."""


class Work(NamedTuple):
    """One task: its number, how long it takes, what comes with it."""

    n: int
    nap_ms: float = 0
    payload: str = ""

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of the task, without those that have their default."""
        extra = {name: value for name, value in (("nap_ms", self.nap_ms), ("payload", self.payload)) if value}
        return {"n": self.n, **extra}


class Workers(ABC):
    """Workers that have been started."""

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """Return all that live now, but the database's."""


class Queue(ABC):
    """A queue of one contender, empty at first."""

    database: Database | None = None
    """Where it is kept, if that is PostgreSQL."""

    @abstractmethod
    def enqueue_many(self, works: Sequence[Work]) -> None:
        """Enqueue *works* in the quickest way there is; they are committed, where there are commits, when it returns."""

    @abstractmethod
    def enqueue_one(self, work: Work) -> None:
        """Enqueue one task, committed when it returns."""

    def hold(self) -> bool:
        """Let no worker start anything until `let_go`; answer whether the contender can."""
        return False

    def let_go(self) -> None:
        """End `hold`."""
        raise NotImplementedError

    @abstractmethod
    def is_drained(self) -> bool:
        """Answer whether every task that was enqueued has ended, as far as the queue itself knows."""

    @abstractmethod
    def workers(self, meter: Meter) -> AbstractContextManager[Workers]:
        """Start workers whose tasks note into *meter*; end them afterwards."""


@dataclass(frozen=True)
class Contender(ABC):
    """One that takes part.

    Attributes:
      how: its settings, for the output.
      share: of the tasks that a measurement asks for, how many it gets: one that is ten times slower would take ten times as long.
      slots: how many tasks it runs at once, if that is a small fixed number.
      enqueues: whether it can be measured as a producer.
    """

    name: str
    how: str
    share: float = 1.0
    slots: int | None = None
    enqueues: bool = True

    @abstractmethod
    def open(self, cluster: Cluster) -> AbstractContextManager[Queue]:
        """Make an empty queue, on a database of *cluster* if it needs one; it is gone afterwards."""


class NotInstalledError(Exception):
    """Something that a contender needs is not on this machine."""


def load_contenders(names: Sequence[str] = ()) -> tuple[list[Contender], dict[str, str]]:
    """Return the contenders with these names, or all that are not variants of another; and what is missing, by name.

    Raises:
      LookupError: nobody has such a name.
    """
    found: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for module in MODULES:
        try:
            contenders: Mapping[str, Contender] = importlib.import_module(f"benchmarks.contenders.{module}").CONTENDERS
            found |= contenders
        except ModuleNotFoundError as error:
            missing[module] = f"{error.name} is not installed"
        except NotInstalledError as error:
            missing[module] = str(error)
    wanted = list(names) or [name for name in MODULES if name not in missing]
    if unknown := [name for name in wanted if name not in found and name not in missing]:
        raise LookupError(f"expected one of {', '.join([*found, *missing])}, got {', '.join(unknown)}")
    return [found[name] for name in wanted if name in found], {name: why for name, why in missing.items() if not names or name in names}


def require_program(name: str) -> str:
    """Return the path of a program that a contender needs.

    Raises:
      NotInstalledError: it is not on the path.
    """
    if path := shutil.which(name):
        return path
    raise NotInstalledError(f"{name} is not on the path")
