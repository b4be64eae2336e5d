"""The executors of a shard: as many as wanted, each with work in hand, none for longer than it may.

wanted ──fork──► booting ──forked──► ready ◄──► busy ──exited──► group killed ──reaped──► row free
                                       └─ leaving (dismissed: ends after its task)
"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable

from reproq_supervisor.core.policy.fresh import executors_to_keep
from reproq_supervisor.core.policy.handout import MOST_AHEAD, ServiceTimes
from reproq_supervisor.core.work import Result
from reproq_supervisor.pool.hand_out import draw_batch
from reproq_supervisor.pool.held import Held, Phase
from reproq_supervisor.pool.lease_ends import LeaseEnds
from reproq_supervisor.pool.nursery_link import NurseryLink
from reproq_supervisor.pool.roll import Roll
from reproq_supervisor.pool.worker import Executor, Output
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable, SoftReason
from reproq_supervisor.process.groups import kill_group, reap_group

MOST_EXECUTORS = 1024
FORK_AGAIN_AFTER_S = 1.0


class Crew(Roll):
    """Forks, feeds and buries executors. What a run's end means is not its business: it reports to its owner.

    Args:
      single_use: executors serve one task each and leave; some wait beside those that run.
      on_finished: a run ended by itself.
      on_results: all that an executor has handed back so far is told; before it gets more work.
      on_crashed: the executor died; the runs it was running, each with what it had written, and its exit status.
    """

    def __init__(
        self,
        table: DeadlineTable,
        times: ServiceTimes,
        lease_s: float,
        *,
        single_use: bool,
        on_finished: Callable[[Held, Result, Output | None], None],
        on_results: Callable[[Executor], None],
        on_crashed: Callable[[Executor, list[tuple[Held, Output | None]], int], None],
    ) -> None:
        super().__init__(single_use=single_use)
        self.buffer: deque[Held] = deque()
        self._table = table
        self._times = times
        self._lease_ends = LeaseEnds(table, lease_s)
        self._on_finished = on_finished
        self._on_results = on_results
        self._on_crashed = on_crashed
        self._nursery: NurseryLink | None = None
        self._booting = 0
        self._free_rows = set(range(table.rows))
        self._next_seq = 1
        self._fork_again_mono = 0.0
        self.useless_exits = 0  # executors in a row that died without having finished anything

    # -- size ---------------------------------------------------------------------------------------------------------

    @property
    def booting(self) -> int:
        return self._booting

    def use(self, nursery: NurseryLink) -> None:
        self._nursery = nursery

    def fit(self) -> None:
        """Fork what is missing, a replacement for each outgoing one included; dismiss what is too many: outgoing and idle ones first."""
        if self._nursery is None:
            return
        kept = executors_to_keep(self.wanted, single_use=self._single_use)
        staying = [e for e in self._executors.values() if not (e.leaving or e.exited)]
        outgoing = sum(e.outgoing for e in staying) if self.wanted else 0
        for executor in sorted(staying, key=lambda e: (not e.outgoing, len(e.in_hand)))[: max(0, len(staying) - kept)]:
            self.dismiss(executor)
        if time.monotonic() < self._fork_again_mono:
            return
        for _ in range(kept + outgoing - len(staying) - self._booting):
            if not self._free_rows:
                return
            row = self._free_rows.pop()
            self._table.clear(row)
            self._booting += 1
            self._nursery.send({"type": "fork", "slot": row})

    def use_slots(self, slots: int) -> None:
        """Have every executor run so many tasks at once from now on."""
        self.slots_each = slots
        for executor in self._executors.values():
            self._tell_slots(executor)
        self.dispatch()

    def _tell_slots(self, executor: Executor) -> None:
        if self.slots_each in (None, executor.in_hand.slots) or executor.leaving or executor.exited:
            return
        if not executor.use_slots(self.slots_each):
            asyncio.get_running_loop().add_writer(executor.work, self._flush, executor)

    @property
    def can_fork(self) -> bool:
        """Whether there is somebody to fork one more, and room for it."""
        return self._nursery is not None and bool(self._free_rows) and time.monotonic() >= self._fork_again_mono

    def note_not_forked(self, row: int) -> None:
        """The nursery has no memory, process or descriptor left for another: leave it alone for a moment."""
        self._booting -= 1
        self._free_rows.add(row)
        self._fork_again_mono = time.monotonic() + FORK_AGAIN_AFTER_S

    def dismiss(self, executor: Executor) -> None:
        """Let an executor end after what it is running."""
        self.put_back(executor.take_back())
        executor.dismiss()

    def take_in(self, executor: Executor) -> None:
        """A forked executor arrived."""
        self._booting -= 1
        executor.single_use = self._single_use
        self._executors[executor.pid] = executor
        loop = asyncio.get_running_loop()
        loop.add_reader(executor.work, self._read_results, executor)
        self._tell_slots(executor)
        self.fit()
        self.dispatch()

    # -- work ---------------------------------------------------------------------------------------------------------

    def put_back(self, runs: list[Held]) -> None:
        """Runs that were handed out but never started come first again."""
        for held in reversed(runs):
            held.phase = Phase.BUFFERED
            held.started_mono = None
            self.buffer.appendleft(held)

    def dispatch(self) -> None:
        """Hand buffered runs to executors: idle ones first, then ahead of time while the work in hand is short."""
        if not self.buffer:
            return
        able = [e for e in self._executors.values() if e.takes_work]
        room = max(0, self.wanted - self.busy) if self._single_use else len(able)
        for executor in sorted(able, key=lambda e: len(e.in_hand))[:room]:
            if not self.buffer:
                return
            self._feed(executor)

    def _feed(self, executor: Executor) -> None:
        now = time.monotonic()
        batch = draw_batch(
            self.buffer,
            executor.in_hand,
            self._times,
            most_ahead=1 if self._single_use else MOST_AHEAD,
            startable_until=self._lease_ends.startable_until(),
            now_mono=now,
        )
        if not batch:
            return
        self._lease_ends.tell(executor, batch)
        for held in batch:
            held.phase = Phase.HANDED
            held.seq = self._next_seq
            self._next_seq += 1
        sent = executor.hand_out(batch)
        executor.in_hand.note_begun(now)
        if not sent:
            asyncio.get_running_loop().add_writer(executor.work, self._flush, executor)

    def _flush(self, executor: Executor) -> None:
        if executor.flush():
            asyncio.get_running_loop().remove_writer(executor.work)

    def _read_results(self, executor: Executor) -> None:
        results = executor.read_results()
        if executor.eof:
            asyncio.get_running_loop().remove_reader(executor.work)
        if not results:
            return
        self.useless_exits = 0
        now = time.monotonic()
        for held, result, output in results:
            held.started_mono = now - result.elapsed_s
            self._times.observe(held.claimed.task_path, result.elapsed_s)
            self._on_finished(held, result, output)
        executor.in_hand.note_begun(now)
        self._on_results(executor)
        if executor.takes_work:
            self._feed(executor)
        else:
            self.fit()
            self.dispatch()
        self.set_deadline(executor)

    def set_deadline(self, executor: Executor) -> None:
        """Tell the nursery until when this executor may run what it has in hand."""
        self._lease_ends.tell(executor)

    # -- end ----------------------------------------------------------------------------------------------------------

    def ask_to_stop(self, executor: Executor, held: Held) -> None:
        """Send the soft signal for a run in its hands, with the reason noted there."""
        assert held.soft_reason is not None
        if executor.shared:
            if not executor.send_stop(held.seq, held.soft_reason):
                asyncio.get_running_loop().add_writer(executor.work, self._flush, executor)
        else:
            self._table.set_soft(executor.row, held.seq, held.soft_reason)
            executor.send_signal(SOFT_SIGNAL)

    def busy_run(self, executor: Executor) -> Held | None:
        """Return the run that kept the loop of *executor* busy when it was asked last."""
        return executor.in_hand.get(self._table.busy(executor.row))

    def kill(self, executor: Executor, excuse: SoftReason | None = None) -> None:
        """Kill it; its exit will be reported like any other.

        Args:
          excuse: why none of its runs is to blame, those excepted that were asked to stop; without it they crashed.
        """
        executor.excuse = excuse or executor.excuse
        executor.send_signal(signal.SIGKILL)

    def note_stopped(self, pid: int, *, stopped: bool) -> None:
        """Somebody stopped or continued an executor with a signal."""
        executor = self._executors.get(pid)
        if executor is not None:
            executor.stopped_since_mono = time.monotonic() if stopped else None

    def note_overdue(self, pid: int) -> None:
        """The nursery killed an executor because a lease was about to end: what it ran is not to blame."""
        executor = self._executors.get(pid)
        if executor is not None:
            executor.excuse = SoftReason.LEASE_LOST

    def bury(self, pid: int, status: int) -> None:
        """An executor is dead and unreaped: kill its group, learn what it left, let the nursery reap it."""
        executor = self._executors.get(pid)
        if executor is None or executor.exited:
            return
        kill_group(pid)
        self._account_for(executor, status)
        if self._nursery is not None:
            self._nursery.send({"type": "reap", "pid": pid})

    def _account_for(self, executor: Executor, status: int) -> None:
        executor.exited = True
        loop = asyncio.get_running_loop()
        loop.remove_writer(executor.work)
        for held, result, output in executor.read_results(all_of_it=True):
            held.started_mono = time.monotonic() - result.elapsed_s
            self._on_finished(held, result, output)
        loop.remove_reader(executor.work)
        self.put_back(executor.take_back())
        running, rest = executor.take_running()
        self.put_back(rest)  # it can only have started them if we do not understand what it said
        self._table.clear(executor.row)
        if executor.finished_total == 0 and not running and not executor.leaving:
            self.useless_exits += 1
        self._on_crashed(executor, running, status)

    def forget(self, pid: int) -> None:
        """The nursery reaped it: its row is free."""
        executor = self._executors.pop(pid, None)
        if executor is not None:
            executor.close()
            self._free_rows.add(executor.row)
            self.fit()

    def bury_all(self) -> None:
        """The nursery is dead, and by its death signal every executor: reap those that fell to us, then account for their runs."""
        self._nursery = None
        self._booting = 0
        for executor in self.executors:
            executor.send_signal(signal.SIGKILL)
            if not executor.exited:
                self._account_for(executor, reap_group(executor.pid))
            self.forget(executor.pid)
