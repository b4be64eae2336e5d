"""The account of one group: which of its units may start now, and why not.

                  too many exits             time                healthy
    CLOSED ───────────────────────► OPEN ───────────► PROBING ───────────► CLOSED
       │                             ▲   probe failed    │
       │ exit 78                     └───────────────────┘
       └───────► REFUSED             any ──reset (reload, restart command)──► CLOSED

OPEN is the *quarantine*: no unit of the group starts, those that run go on. PROBING lets exactly one start.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from reproq_supervisor.core.policy.restart import (
    ExitKind,
    Quarantine,
    RestartPolicy,
    backoff_s,
    decide_restart,
    healthy_after_s,
    probe_pause_s,
)
from reproq_supervisor.core.supervision.units import Unit

PROBE_HEALTHY_S = 10.0
"""How long a probe must stay ready before the whole group starts again."""

START_SPACING_S = 0.1
"""The least time between two starts of a unit."""


class Circuit(StrEnum):
    """State of a group's account."""

    CLOSED = "closed"
    OPEN = "quarantined"
    PROBING = "probing"
    REFUSED = "refused"


@dataclass(slots=True)
class UnitHealth:
    """One unit's failures in a row and the moment before which it is not started."""

    failures: int = 0
    not_before: float = 0.0
    starts: int = 0
    started_mono: float = float("-inf")
    last_cause: str = ""
    last_kind: ExitKind | None = None
    last_death: float = 0.0


@dataclass(slots=True)
class Health:
    """A group's account. All times are monotonic seconds."""

    policy: RestartPolicy
    circuit: Circuit = Circuit.CLOSED
    units: dict[Unit, UnitHealth] = field(default_factory=dict)
    deaths: list[float] = field(default_factory=list)
    probe_at: float = 0.0
    probe: Unit | None = None
    failed_probes: int = 0
    reason: str = ""

    def of(self, unit: Unit) -> UnitHealth:
        """Return the unit's part of the account."""
        return self.units.setdefault(unit, UnitHealth())

    def start_at(self, unit: Unit, now: float) -> float | None:
        """Return when *unit* may start (not after *now* means at once), None when only something else can free it."""
        match self.circuit:
            case Circuit.CLOSED:
                return self.of(unit).not_before
            case Circuit.OPEN:
                return self.probe_at
            case Circuit.PROBING:
                # The chosen unit may have died planned or never started: it stays the one that is tried.
                return self.of(unit).not_before if self.probe == unit else None
            case Circuit.REFUSED:
                return None

    def note_start(self, unit: Unit, now: float) -> bool:
        """Enter that *unit* is being started; answer whether it is a probe."""
        health = self.of(unit)
        health.starts += 1
        # Whatever goes wrong elsewhere, one unit alone can never start processes as fast as the machine can.
        health.started_mono, health.not_before = now, now + START_SPACING_S
        if self.circuit is Circuit.OPEN:
            self.circuit = Circuit.PROBING
            self.probe = unit
            return True
        return False

    def note_death(self, unit: Unit, kind: ExitKind, cause: str, now: float, jitter: float, waited_s: float = 0.0) -> None:
        """Enter an exit and decide when, or whether, the unit starts again.

        Args:
          waited_s: how long the process did nothing before it was given up; 0 for one that ended by itself.
        """
        health = self.of(unit)
        health.last_cause, health.last_kind, health.last_death = cause, kind, now
        match kind:
            case ExitKind.PLANNED:
                # One that leaves by itself over and over must not spin.
                health.not_before = max(now, health.started_mono + self.policy.base_s)
            case ExitKind.PERMANENT:
                self.circuit, self.probe, self.reason = Circuit.REFUSED, None, cause
            case ExitKind.UNAVAILABLE:
                health.failures += 1
                pause = backoff_s(self.policy, health.failures, jitter, cap_s=self.policy.unavailable_cap_s)
                health.not_before = now + pause
            case ExitKind.ABNORMAL:
                self._note_failure(unit, health, cause, now, jitter, waited_s)

    def _note_failure(self, unit: Unit, health: UnitHealth, cause: str, now: float, jitter: float, waited_s: float) -> None:
        health.failures += 1
        # While one hung nothing was proved. Were that time counted, what takes a minute to be found out would never be too often.
        died_at = [min(now, died + waited_s) for died in self.deaths]
        self.deaths = [died for died in died_at if died > now - self.policy.window_s] + [now]
        health.not_before = now + backoff_s(self.policy, health.failures, jitter)
        if self.circuit is Circuit.PROBING and self.probe == unit:
            self.failed_probes += 1
            self._open(now + probe_pause_s(self.policy, self.failed_probes), cause)
            return
        verdict = decide_restart(self.policy, health.failures, tuple(self.deaths), now, jitter)
        if self.circuit is Circuit.CLOSED and isinstance(verdict, Quarantine):
            self._open(now + verdict.probe_in_s, cause)

    def _open(self, probe_at: float, cause: str) -> None:
        self.circuit, self.probe, self.probe_at, self.reason = Circuit.OPEN, None, probe_at, cause

    def note_health(self, unit: Unit, ready_for_s: float, boot_s: float) -> bool:
        """Enter that *unit* has been ready for so long; answer whether that ended the quarantine."""
        if self.circuit is Circuit.PROBING and self.probe == unit and ready_for_s >= PROBE_HEALTHY_S:
            self.reset()
            return True
        if ready_for_s >= healthy_after_s(self.policy, boot_s):
            self.of(unit).failures = 0
        return False

    def note_gone(self, unit: Unit, now: float) -> None:
        """Enter that *unit* is wanted no more: a probe passes to another one."""
        self.units.pop(unit, None)
        if self.probe == unit and self.circuit is Circuit.PROBING:
            self._open(now, self.reason)

    def reset(self) -> None:
        """Forget every failure: the next start is at once."""
        self.circuit, self.probe, self.failed_probes, self.reason = Circuit.CLOSED, None, 0, ""
        self.deaths.clear()
        for health in self.units.values():
            health.failures, health.not_before = 0, 0.0

    @property
    def can_start(self) -> bool:
        """Is nothing but time between a unit of the group and its start?"""
        return self.circuit is not Circuit.REFUSED
