"""What a shard tells the supervisor about itself, once a second."""

import time
from typing import Any

from reproq_supervisor.core.policy.recycle import RecycleReason
from reproq_supervisor.pool.conversation import Conversation
from reproq_supervisor.pool.desk import Desk
from reproq_supervisor.process.title import ProcessTitle

_MOST_NAMED = 5


class Report:
    """Builds snapshots; remembers what it needs for rates. Sets the process title, too."""

    def __init__(self, child: str, isolation: str, desk: Desk, conversation: Conversation) -> None:
        self._child = child
        self._isolation = isolation
        self._desk = desk
        self._conversation = conversation
        self._title = ProcessTitle()
        self._last = (0, time.monotonic())

    def snapshot(self, state: str, why: str) -> dict[str, Any]:
        """Return the shard as `status` shows it (docs/architecture.md has the fields)."""
        totals, crew, talk = self._desk.ledger.totals, self._desk.crew, self._conversation
        rate = self._rate(totals.completed + totals.failed + totals.retried)
        self._title.set(f"reproq: shard {self._child} ({crew.running} running, {rate:.0f}/s)")
        return {
            "executors": {
                "ready": crew.ready,
                "busy": crew.busy,
                "booting": crew.booting,
                "wanted": crew.wanted,
                "pids": [executor.pid for executor in crew.executors],
            },
            "sizing": self._desk.sizing.snapshot(),
            "slot_sizing": self._desk.slot_sizing.snapshot(),
            "running": crew.running,
            "slots": crew.slots,
            "isolation": self._isolation,
            "held": len(self._desk.held),
            "locked_endings": self._locked_endings(),
            "refused": self._refused(),
            "claimed_total": totals.claimed,
            "completed_total": totals.completed,
            "failed_total": totals.failed,
            "retried_total": totals.retried,
            "released_total": totals.released,
            "lost_total": totals.lost,
            "crashed_total": totals.crashed,
            "recycled": {reason.value: self._desk.recycling.totals[reason] for reason in RecycleReason},
            "recycling": self._desk.recycling.waiting,
            "timeouts_total": self._desk.watch.timeouts_total,
            "rate_per_s": round(rate, 1),
            "queues": {name: {"claimed_total": count} for name, count in totals.by_queue.items()},
            "database": {"up": talk.up, "since_s": round(time.monotonic() - talk.since_mono, 1), "error": talk.error},
            "state": state,
            "why": why,
            "progress": totals.completed + totals.failed + totals.retried + totals.released,
        }

    def why(self, *, preloaded: bool, paused: bool) -> str:
        """Return why the shard claims nothing; '' when it does."""
        if not self._conversation.up:
            return f"no database: {self._conversation.error or 'connecting'}"
        if not preloaded:
            return "importing the application"
        return "paused by an operator" if paused else ""

    def _locked_endings(self) -> dict[str, Any]:
        locked = self._desk.ledger.locked_endings()
        return {"count": len(locked), "first": locked[:_MOST_NAMED]}

    def _refused(self) -> dict[str, Any]:
        refused = self._desk.ledger.refused()
        first = list(refused)[:_MOST_NAMED]
        return {"count": len(refused), "first": first, "error": refused[first[0]] if first else None}

    def _rate(self, finished: int) -> float:
        """Return runs finished per second since the last call."""
        before, at = self._last
        now = time.monotonic()
        self._last = (finished, now)
        return (finished - before) / max(now - at, 1e-3)
