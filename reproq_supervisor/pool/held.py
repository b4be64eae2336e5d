"""Runs that this shard holds a lease for, from claim to acknowledged ending."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from reproq_supervisor.core.runs import Claimed, Ending, LeaseNo, Outcome, RunId
from reproq_supervisor.core.work import Work
from reproq_supervisor.process.deadlines import SoftReason


class Phase(StrEnum):
    """Where a held run is."""

    BUFFERED = "buffered"  # claimed, waiting for an executor
    HANDED = "handed"  # in an executor's hands; whether it started, the token pipe says
    ENDED = "ended"  # its ending waits for the next cycle


class End(NamedTuple):
    """How a held run ended, until the database knows; the fields are those of `Ending`."""

    outcome: Outcome
    value: bytes | None = None
    delay_s: float | None = None
    logs_uri: str | None = None


RELEASED = End(Outcome.RELEASE)
PUT_BACK = End(Outcome.PUT_BACK)


@dataclass(slots=True, eq=False)
class Held:
    """One run under our lease.

    Attributes:
      lease_until: boot time at which our lease ends, counted from before the claim or renewal was sent.
      started_mono: when its execution began as far as we know; None before it is the head of its executor.
      soft_reason: why it was asked to stop, None while nobody asked.
      told_limit_s: the time limit that its context tells it.
      limit_s: the time limit that it ran into.
      kill_at_mono: when its executor is killed if it does not stop.
      shown: its record says RUNNING.
      is_next: it starts as soon as it is shown.
      busy_until_mono: when to try again to write what somebody's lock, or PostgreSQL itself, kept from its record.
      trouble: why PostgreSQL refuses to write its start or its end, None while it does not.
      refusals: how often it has refused it, one after the other.
      unrenewed_until_mono: when to try again to renew a lease that somebody's lock kept from it.
      note: what it noted down about itself, as JSON text, until the database has it.
      note_after_mono: when that may be written.
    """

    claimed: Claimed
    lease_until: float
    claimed_mono: float
    phase: Phase = Phase.BUFFERED
    seq: int = 0
    started_mono: float | None = None
    soft_reason: SoftReason | None = None
    told_limit_s: float = 0.0
    limit_s: float | None = None
    kill_at_mono: float | None = None
    shown: bool = False
    is_next: bool = False
    busy_until_mono: float = 0.0
    trouble: str | None = None
    refusals: int = 0
    unrenewed_until_mono: float = 0.0
    note: bytes | None = None
    note_after_mono: float = 0.0
    end: End | None = None

    def work(self) -> Work:
        """Return it as an executor receives it."""
        claimed = self.claimed
        return Work(
            self.seq,
            claimed.result_id,
            claimed.attempt,
            claimed.max_attempts,
            claimed.priority,
            claimed.queue_name,
            claimed.task_path,
            claimed.spec,
            claimed.lease_no,
            self.told_limit_s,
        )

    def runs_longer_than(self, seconds: float, now_mono: float) -> bool:
        """Answer whether it has been running for more than *seconds*, as far as we know."""
        return self.started_mono is not None and now_mono - self.started_mono > seconds

    def ending(self, now_mono: float) -> Ending:
        """Return the ending as the store takes it, with ages counted up to now."""
        assert self.end is not None
        end = self.end
        ago = None if self.started_mono is None else max(0.0, now_mono - self.started_mono)
        claimed = self.claimed
        return Ending(claimed.result_id, claimed.lease_no, end.outcome, end.value, end.delay_s, ago, end.logs_uri)


class HeldRuns:
    """All held runs; the same run claimed again replaces what we knew of it."""

    def __init__(self) -> None:
        self._by_id: dict[RunId, Held] = {}
        self.ended = 0
        self.open_bytes = 0
        """Payloads of the runs that have not ended."""

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def open(self) -> int:
        """Runs that have not ended: what takes room in executors and buffer."""
        return len(self._by_id) - self.ended

    def add(self, held: Held) -> None:
        self.drop(held.claimed.result_id)
        self._by_id[held.claimed.result_id] = held
        if held.phase is not Phase.ENDED:
            self.open_bytes += len(held.claimed.spec)

    def get(self, result_id: RunId) -> Held | None:
        return self._by_id.get(result_id)

    def values(self) -> list[Held]:
        return list(self._by_id.values())

    def end(self, held: Held, end: End) -> None:
        """Note how *held* ended; it stays held until the database acknowledged that."""
        if held.phase is not Phase.ENDED:
            self.ended += 1
            self.open_bytes -= len(held.claimed.spec)
            if held.trouble is not None:
                # Its start was refused. Its end may not be.
                held.trouble, held.refusals, held.busy_until_mono = None, 0, 0.0
        held.phase = Phase.ENDED
        held.end = end

    def drop(self, result_id: RunId, lease_no: LeaseNo | None = None) -> Held | None:
        """Forget a run whose ending was acknowledged or whose lease is lost."""
        held = self._by_id.get(result_id)
        if held is None or (lease_no is not None and held.claimed.lease_no != lease_no):
            return None
        del self._by_id[result_id]
        if held.phase is Phase.ENDED:
            self.ended -= 1
        else:
            self.open_bytes -= len(held.claimed.spec)
        return held
