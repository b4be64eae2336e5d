"""A shard's connection to the database: the cycle, the look at its leases after a reconnection, and the flag that says it sleeps.

Wake-up without a notification for every row, and without a lost one:

    cycle claimed nothing ─► flag set, then mark ─► poll every 10 to 50 ms until settled ─► last look ─► long sleep until a note or a poll
                                                    (the cycle that claims next clears the flag in its own commit)

A note is answered by a claim of what is ready, which leaves the flag where it is: one task on an idle pool then starts 0.3 ms sooner, and
to sleep again costs nothing. What else a cycle does before it claims is done by the one that follows; if that claims too, it is busy here
and the flag goes.

*Settled* means that every transaction older than the mark has ended. A producer that wrote its first row after the mark sees the flag in
its trigger and notifies; one that did so before has ended by then, so the last look sees its rows. The flag alone would lose runs: a
producer may read it just before it is set and commit just after the look. Producers at REPEATABLE READ may have read too early; the poll
interval covers them.

When it fails: a connection on which anything unexpected happened (an error of the network, a cancelled call) is closed, and every later
call raises `StoreUnavailable`. Connect again, ask `held` before anything else, stop what is not held any more, and send the unanswered
endings once more. Those that had been committed come back as ended, if the record shows this worker as its last and nobody holds the run;
everything else that is not ours any more comes back as lost, releases included, for they leave no trace of the worker.
"""

import math
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

from reproq_supervisor.core.runs import Claimed, CycleReply, CycleRequest, LeaseNo, Note, QueueLoad, RunId, RunStatus
from reproq_supervisor.store.arrays import number_array, text_array
from reproq_supervisor.store.coexistence import PRODUCT
from reproq_supervisor.store.connection import StoreConnection
from reproq_supervisor.store.endings import arrays_of
from reproq_supervisor.store.looks import START, Looks, Place

_WORDS = "ended, lost, busy, refused, unrenewed, cancel, claimed, suspect, looked, cut, contended or throttled"
REFLAG_AFTER_S = 30.0
"""A sleeper says that it still sleeps, so that the keeper can forget those who died asleep."""


class ShardStore:
    """One shard's connection. Not for concurrent use: one call at a time."""

    def __init__(self, connection: StoreConnection, worker_id: str) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._looks = Looks()
        self._asleep_on: frozenset[str] = frozenset()
        self._flagged_mono = -math.inf
        self._unsettled_mark: int | None = None

    @classmethod
    async def connect(cls, dsn: str, worker_id: str, *, application_name: str = "reproq", prepare: bool = True) -> Self:
        """Connect as the holder *worker_id* of all leases claimed here.

        Args:
          prepare: False for poolers that do not keep prepared statements.
        """
        return cls(await StoreConnection.open(dsn, application_name=application_name, prepare=prepare), worker_id)

    async def cycle(self, request: CycleRequest) -> CycleReply:
        """Write back, renew, show and claim in one statement, which is one transaction and one commit; durable if it carries endings.

        Raises:
          StoreUnavailable: nothing is known about *request*; see above.
          StoreError: nothing of it happened, and sending it again would fail again.
        """
        places = self._looks.places((queue for queue, _ in request.claims), time.monotonic())
        parameters = _parameters(self._worker_id, request, places, bool(self._asleep_on))
        reply = self._reply(await self._connection.ask("task_lane", "cycle", parameters))
        if reply.claimed:
            self._asleep_on = frozenset()
        return reply

    def may_claim_ready(self) -> bool:
        """Answer whether `claim_ready` is the way to answer a note: for a sleeper, while looks from the start are cheap."""
        return bool(self._asleep_on) and self._looks.rest_s(time.monotonic()) is None

    async def claim_ready(self, request: CycleRequest) -> CycleReply:
        """Claim what is ready, as fast as can be, and stay a sleeper; nothing else of *request* is done. A cycle must follow soon.

        Raises as `cycle`.
        """
        parameters = {
            "leased_by": self._worker_id,
            "lease_s": request.lease_s,
            "queues": text_array(queue for queue, _ in request.claims),
            "wanted": number_array(wanted for _, wanted in request.claims),
            "claim_bytes": str(request.claim_bytes),
        }
        return self._reply(await self._connection.ask("task_lane", "claim_ready", parameters))

    async def note(self, notes: Sequence[Note]) -> frozenset[RunId]:
        """Write what runs have noted down about themselves; return those that somebody has locked, for a later try.

        What the lease no longer covers is not written, and neither is what PostgreSQL does not take as JSON.
        """
        parameters = {
            "leased_by": self._worker_id,
            "ids": number_array(note.result_id for note in notes),
            "lease_nos": number_array(note.lease_no for note in notes),
            "metadata": text_array(note.metadata.decode(errors="replace").replace("\0", "\ufffd") for note in notes),
        }
        return frozenset(RunId(run) for (run,) in await self._connection.ask("task_lane", "note", parameters))

    async def held(self, leases: Iterable[tuple[RunId, LeaseNo]]) -> set[tuple[RunId, LeaseNo]]:
        """Return which of these leases are still ours."""
        asked = set(leases)
        rows = await self._connection.ask("task_lane", "held", {"ids": [run for run, _ in asked], "leased_by": self._worker_id})
        return asked & {(run, no) for run, no in rows}

    async def load(self, queues: Sequence[str], most: int) -> QueueLoad:
        """Count what is ready in *queues*, up to *most*, from the places where claims begin."""
        places = self._looks.places(queues, time.monotonic())
        parameters = {"worker_id": self._worker_id, "queues": list(queues), "most": most, **_begin_at(places)}
        rows = await self._connection.ask("task_lane", "load", parameters)
        return QueueLoad(*rows[0])

    async def settle_idle(self, queues: Sequence[str]) -> float:
        """Go to sleep on *queues*, step by step; call it before every wait after a claim that came back short.

        Returns:
          seconds after which to claim again unless a note comes first: 10 to 50 ms while a producer may have missed the flag, then 0 once
          for the last look, then infinity. While looks from the start are dear, both the last look and infinity are the next such look.
        """
        if self._asleep_on != frozenset(queues):
            await self.forget_idle()
            await self._flag(queues)
            self._asleep_on = frozenset(queues)
            rows = await self._connection.ask("reproq_queue_idle", "mark", {})
            self._unsettled_mark = rows[0][0]
        elif time.monotonic() - self._flagged_mono > REFLAG_AFTER_S:
            await self._flag(queues)
        rest_s = self._looks.rest_s(time.monotonic())
        if self._unsettled_mark is None:
            return math.inf if rest_s is None else rest_s
        rows = await self._connection.ask("reproq_queue_idle", "is_settled", {"mark": self._unsettled_mark})
        if not rows[0][0]:
            return random.uniform(0.01, 0.05)  # noqa: S311 - spread, not a secret
        self._unsettled_mark = None
        return 0 if rest_s is None else rest_s

    async def announce(self, *, hostname: str, concurrency: int, queues: Sequence[str], version: str) -> None:
        """Enter this worker into the table of workers, or say that it is still here; the start that it was first told stays."""
        parameters = {
            "worker_id": self._worker_id,
            "hostname": hostname,
            "concurrency": concurrency,
            "queues": list(queues),
            "version": f"{PRODUCT} {version}",
        }
        await self._connection.ask("reproq_workers", "announce", parameters)

    async def forget_idle(self) -> None:
        """Take the flag back without a claim, e.g. before leaving."""
        if self._asleep_on:
            await self._connection.ask("reproq_queue_idle", "forget", {"worker_id": self._worker_id})
            self._asleep_on = frozenset()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone and a new one is needed."""
        return self._connection.closed

    async def close(self) -> None:
        """Close the connection; leases stay as they are."""
        await self._connection.close()

    async def _flag(self, queues: Sequence[str]) -> None:
        await self._connection.ask("reproq_queue_idle", "register", {"queues": list(queues), "worker_id": self._worker_id})
        self._flagged_mono = time.monotonic()

    def _reply(self, rows: list[tuple[Any, ...]]) -> CycleReply:
        ended: dict[RunId, RunStatus] = {}
        refused: dict[RunId, str] = {}
        named: dict[str, set[RunId]] = {"lost": set(), "busy": set(), "unrenewed": set(), "cancel": set()}
        claimed: list[Claimed] = []
        flags = {"cut": False, "contended": False}
        next_token_s: float | None = None
        for what, run, status, no, attempt, queue, priority, path, timeout_s, max_attempts, spec, key, due_at, took_s, runs in rows:
            match what:
                case "claimed" | "suspect":
                    parts = (run, no, attempt, queue, priority, path, float(timeout_s), max_attempts, spec.encode(), what == "suspect")
                    claimed.append(Claimed(*parts))
                case "ended":
                    ended.update(dict.fromkeys(runs, RunStatus(status)))
                case "refused":
                    refused.update(dict.fromkeys(runs or (run,), status))
                case "lost" | "busy" | "unrenewed" | "cancel":
                    named[what].update(runs or (run,))
                case "cut" | "contended":
                    flags[what] = True
                case "throttled":
                    next_token_s = took_s
                case "looked":
                    reached = Place(key, due_at, run) if run is not None else None
                    self._looks.looked(queue, reached, took_s, time.monotonic())
                case _:
                    raise AssertionError(f"reproq_brief_cycle: expected {_WORDS}, got {what!r}")
        sets = {name: frozenset(runs) for name, runs in named.items()}
        return CycleReply(
            ended=ended,
            refused=refused,
            claimed=tuple(claimed),
            is_cut=flags["cut"],
            is_contended=flags["contended"],
            next_token_s=next_token_s,
            **sets,
        )


def _parameters(worker_id: str, request: CycleRequest, places: Sequence[Place], is_idle: bool) -> dict[str, Any]:
    return {
        "leased_by": worker_id,
        "lease_s": request.lease_s,
        **arrays_of(request.endings),
        "show_ids": number_array(run.result_id for run in request.started),
        "show_lease_nos": number_array(run.lease_no for run in request.started),
        "show_started_ago": number_array(run.started_s_ago for run in request.started),
        "renew_ids": number_array(run for run, _ in request.renew),
        "renew_lease_nos": number_array(no for _, no in request.renew),
        "watch_ids": number_array(request.watch),
        "queues": text_array(queue for queue, _ in request.claims),
        "wanted": number_array(wanted for _, wanted in request.claims),
        **_begin_at(places),
        "is_idle": is_idle,
        "claim_bytes": str(request.claim_bytes),  # as a number it would have three types, by its size, and three plans
    }


def _begin_at(places: Sequence[Place]) -> dict[str, Any]:
    """Return the places as arrays, None when all are the start."""
    begins_later = any(place is not START for place in places)
    return {
        "after_keys": [place.order_key for place in places] if begins_later else None,
        "after_dues": [place.due_at for place in places] if begins_later else None,
        "after_ids": [place.result_id for place in places] if begins_later else None,
    }
