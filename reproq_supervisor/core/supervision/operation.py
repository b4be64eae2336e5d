"""A reload or restart under way, and the wishes that wait for the next one.

    LOADING ──► CANARY ──► ROLLING ──► ended
       │          │           └─ in force; what fails from here on is restarted like anything else
       │          └─ any failure: the new goes, the old stays, the reason is the answer
       └─ any problem: nothing was touched

A wish that arrives while an operation is under way waits for the next: the file may have changed since it was read. All that wait then
share one, so ten at once cost two.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reproq_supervisor.core.supervision.facts import ClientId
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.units import Serial, Unit

PROBATION_S = 1.0
"""How long canaries must stay ready before the new generation is put in force."""

ROLL_SLACK_S = 10.0
"""What the rest of a generation may take beyond two boots: from its start, and once more from its first word."""

CODE = "code"
"""The key of a change that is in the application's files, not in its settings."""


class OperationPhase(StrEnum):
    """How far an operation has come."""

    LOADING = "loading"
    CANARY = "canary"
    ROLLING = "rolling"


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody wants a reload, or a pool restarted.

    Attributes:
      client: who waits for the answer; None for a signal.
      pool: restart this pool with the settings in force instead of reading the file.
    """

    client: ClientId | None
    dry_run: bool = False
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs. *how* is `live`, `rolling` or `restart`; values are masked where they are secret."""

    key: str
    how: str
    old: Any = None
    new: Any = None

    def as_answer(self) -> dict[str, Any]:
        """Return the form of the control socket."""
        return {"key": self.key, "class": self.how, "old": self.old, "new": self.new}


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """How the last operation ended, for `status` and `explain`.

    Attributes:
      source: the configuration file that has the *problems*.
      pools: those that were restarted; empty for a reload, which concerns all.
    """

    ok: bool
    at_mono: float
    what: str
    code: int = 0
    error: str = ""
    changed: bool = False
    generation: int = 1
    source: str | None = None
    problems: tuple[dict[str, Any], ...] = ()
    pools: frozenset[str] = frozenset()

    def concerns(self, pool: str) -> bool:
        """Answer whether *pool* had a part in it: a restart of others has nothing to say about it."""
        return not self.pools or pool in self.pools


@dataclass(slots=True)
class Operation:
    """One reload or restart. *generation* is new for every attempt, successful or not; *release* names the application's source files.

    Attributes:
      roll_by_mono: when nobody waits any longer for the rest of a generation that is in force.
    """

    wishes: list[Wish]
    began_mono: float
    generation: int
    phase: OperationPhase = OperationPhase.LOADING
    loader: Serial | None = None
    plan: Plan | None = None
    release: str | None = None
    changes: list[Change] = field(default_factory=list)
    canaries: set[Unit] = field(default_factory=set)
    pools: set[str] = field(default_factory=set)
    keeper: bool = False
    roll_by_mono: float = float("inf")

    @property
    def what(self) -> str:
        """Name the operation in a sentence."""
        return f"restart of {', '.join(sorted(self.restarted))}" if self.restarted else "reload"

    @property
    def restarted(self) -> frozenset[str]:
        """The pools that are restarted with the settings in force; none when it is a reload."""
        return frozenset(wish.pool for wish in self.wishes if wish.pool is not None)

    @property
    def only_plans(self) -> bool:
        """Does nobody want it done?"""
        return all(wish.dry_run for wish in self.wishes)
