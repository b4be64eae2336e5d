"""The shard's side of a cycle: what to ask the database for, and what its answer changes."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from reproq_supervisor.core.policy.claim_plan import Turns
from reproq_supervisor.core.policy.handout import MOST_HELD_BYTES
from reproq_supervisor.core.runs import Claimed, CycleReply, CycleRequest, Ending, LeaseNo, Note, Outcome, RunId, RunStatus, Started
from reproq_supervisor.pool.held import Held, HeldRuns, Phase

MOST_ENDINGS = 1000
"""Endings in one transaction: more would make its locks and its result too large."""
SHOW_AFTER_S = 0.5
"""A run that executes longer than this is shown as RUNNING in its record, within the second the contract allows."""
WATCH_EVERY_S = 0.4
"""How often running tasks are checked for a request to cancel them."""
NOTE_EVERY_S = 1.0
"""How often what a running task notes down is written."""
BUSY_FOR_S = 2.0
"""How long a run is left alone that somebody else has locked: every try costs the cycle a wait for the lock."""
REFUSED_FOR_S = (2.0, 60.0)
"""How long one that PostgreSQL refuses to write is left alone at first, doubled each time, and at most: with every try all others of its
cycle are written one by one."""


@dataclass
class Totals:
    """Counters since the start of the shard."""

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    released: int = 0
    lost: int = 0
    crashed: int = 0
    by_queue: Counter[str] = field(default_factory=Counter)


class Ledger:
    """Builds requests from what is held, and applies replies to it."""

    def __init__(self, held: HeldRuns, turns: Turns, lease_s: float) -> None:
        self.turns = turns
        self.lease_s = lease_s
        self.totals = Totals()
        self._held = held
        self._next_watch_mono = 0.0
        self._newly_refused: list[RunId] = []

    def request(self, wanted: int, boot_now: float) -> CycleRequest | None:
        """Return what there is to say to the database now; None when there is nothing.

        Args:
          wanted: runs to claim.
          boot_now: boot time, taken before the request is sent: leases are counted from it.
        """
        now = time.monotonic()
        watching = now >= self._next_watch_mono
        endings: list[Ending] = []
        started: list[Started] = []
        renew: list[tuple[RunId, LeaseNo]] = []
        watch: list[RunId] = []
        renew_before = boot_now + self.lease_s * 2 / 3
        for held in self._held.values():
            claimed = held.claimed
            is_busy = now < held.busy_until_mono
            if held.phase is Phase.ENDED and not is_busy and held.note is None:
                if len(endings) < MOST_ENDINGS:
                    endings.append(held.ending(now))
                continue
            if held.lease_until < renew_before and now >= held.unrenewed_until_mono:
                renew.append((claimed.result_id, claimed.lease_no))
            if held.phase is Phase.ENDED:
                continue
            if watching and now - held.claimed_mono > WATCH_EVERY_S:
                watch.append(claimed.result_id)
            if not held.shown and not is_busy and (held.is_next or held.runs_longer_than(SHOW_AFTER_S, now)):
                ago = 0.0 if held.started_mono is None else now - held.started_mono
                started.append(Started(claimed.result_id, claimed.lease_no, ago))
        if watching:
            self._next_watch_mono = now + WATCH_EVERY_S
        if not (endings or started or renew or watch or wanted):
            return None
        claims = tuple(self.turns.take(wanted)) if wanted > 0 else ()
        room_bytes = MOST_HELD_BYTES - self._held.open_bytes
        return CycleRequest(self.lease_s, tuple(endings), tuple(started), tuple(renew), tuple(watch), claims, room_bytes)

    def notes(self) -> list[Note]:
        """Return what runs have noted down and may be written now: once a second for each, and at once when it has ended.

        They are written before the ending is, which gives up the lease.
        """
        now = time.monotonic()
        return [
            Note(held.claimed.result_id, held.claimed.lease_no, held.note)
            for held in self._held.values()
            if held.note is not None and now >= held.busy_until_mono and (held.phase is Phase.ENDED or now >= held.note_after_mono)
        ]

    def apply_notes(self, notes: list[Note], busy: frozenset[RunId]) -> None:
        """Take in that *notes* are written, those of *busy* excepted, which somebody has locked."""
        now = time.monotonic()
        for note in notes:
            held = self._held.get(note.result_id)
            if held is None or held.claimed.lease_no != note.lease_no:
                continue
            if note.result_id in busy:
                held.busy_until_mono = now + BUSY_FOR_S
            else:
                held.note_after_mono = now + NOTE_EVERY_S
                # Not what was noted while this was under way.
                held.note = None if held.note is note.metadata else held.note

    def apply(self, request: CycleRequest, reply: CycleReply, boot_sent: float) -> tuple[list[Held], list[Held]]:
        """Take the answer to *request* in.

        Returns:
          (newly held runs, open runs whose lease is lost: stop them)
        """
        now = time.monotonic()
        for run in reply.busy:
            if (held := self._held.get(run)) is not None:
                held.busy_until_mono, held.trouble, held.refusals = now + BUSY_FOR_S, None, 0
        for run, trouble in reply.refused.items():
            if (held := self._held.get(run)) is not None:
                self._refuse(held, trouble, now)
        unwritten = reply.busy | reply.refused.keys()
        for ending in request.endings:
            if ending.result_id in unwritten:
                continue
            held = self._held.drop(ending.result_id, ending.lease_no)
            if held is not None and ending.result_id not in reply.lost:
                self._count(ending.outcome, reply.ended.get(ending.result_id))
        for run, lease_no in request.renew:
            held = self._held.get(run)
            if held is None or held.claimed.lease_no != lease_no or run in reply.lost:
                continue
            if run in reply.unrenewed:
                held.unrenewed_until_mono = now + min(BUSY_FOR_S, request.lease_s / 10)
            else:
                held.lease_until = boot_sent + request.lease_s
        for start in request.started:
            held = self._held.get(start.result_id)
            if held is not None and start.result_id not in unwritten:
                held.shown, held.trouble, held.refusals = True, None, 0
        if request.claims:
            self.turns.settle(request.claims, Counter(each.queue_name for each in reply.claimed), is_cut=reply.is_cut)
        lost = self._drop_lost(reply.lost)
        # Given away and claimed again before we heard of it: what still runs under the old lease is as lost.
        lost += self._drop_lost(frozenset(each.result_id for each in reply.claimed if self._held.get(each.result_id) is not None))
        return self._hold(reply.claimed, boot_sent, now), lost

    def _refuse(self, held: Held, trouble: str, now: float) -> None:
        least_s, most_s = REFUSED_FOR_S
        if held.trouble is None:
            self._newly_refused.append(held.claimed.result_id)
        held.busy_until_mono = now + min(most_s, least_s * 2.0 ** min(held.refusals, 16))
        held.trouble, held.refusals = trouble, held.refusals + 1

    def _hold(self, claimed: Sequence[Claimed], boot_sent: float, now: float) -> list[Held]:
        lease_until = boot_sent + self.lease_s
        new = [Held(each, lease_until, now) for each in claimed]
        for held in new:
            self._held.add(held)
        self.totals.claimed += len(new)
        self.totals.by_queue.update([each.queue_name for each in claimed])
        return new

    def _drop_lost(self, lost: frozenset[RunId]) -> list[Held]:
        self.totals.lost += len(lost)
        dropped = [self._held.drop(run) for run in lost]
        return [held for held in dropped if held is not None and held.phase is not Phase.ENDED]

    @property
    def unwritten(self) -> int:
        """Endings that the database does not know yet, those that wait for somebody's lock included."""
        return self._held.ended

    def locked_endings(self) -> list[RunId]:
        """Return the runs that have ended and whose record somebody else has locked, so that their end is not written yet."""
        return [
            held.claimed.result_id
            for held in self._held.values()
            if held.phase is Phase.ENDED and held.busy_until_mono > 0 and held.trouble is None
        ]

    def refused(self) -> dict[RunId, str]:
        """Return the runs whose start or end PostgreSQL refuses to write, and why."""
        return {held.claimed.result_id: held.trouble for held in self._held.values() if held.trouble is not None}

    def take_newly_refused(self) -> dict[RunId, str]:
        """Return those of them that have not been told yet."""
        runs, self._newly_refused = self._newly_refused, []
        return {run: held.trouble for run in runs if (held := self._held.get(run)) is not None and held.trouble is not None}

    def hasten(self) -> None:
        """Say again soon what was refused, however often: there will be no later."""
        for held in self._held.values():
            if held.trouble is not None:
                held.busy_until_mono, held.refusals = 0.0, 0

    def open_leases(self) -> list[tuple[RunId, LeaseNo]]:
        """Return (run, lease number) of everything that has not ended."""
        return [(h.claimed.result_id, h.claimed.lease_no) for h in self._held.values() if h.phase is not Phase.ENDED]

    def forget_lost(self, kept: set[tuple[RunId, LeaseNo]]) -> list[Held]:
        """After a reconnection: drop every open run that is no longer ours; return those that must be stopped.

        Endings stay: the fence judges them when they are written.
        """
        return self._drop_lost(frozenset(run for run, lease_no in self.open_leases() if (run, lease_no) not in kept))

    def _count(self, outcome: Outcome, status: RunStatus | None) -> None:
        totals = self.totals
        match outcome, status:
            case Outcome.SUCCEED, RunStatus.SUCCESSFUL:  # first, since nearly all are
                totals.completed += 1
            case Outcome.RELEASE | Outcome.PUT_BACK, _:
                totals.released += 1
            case _, RunStatus.SUCCESSFUL:
                totals.completed += 1
            case _, RunStatus.READY:
                totals.retried += 1
            case _:
                totals.failed += 1
