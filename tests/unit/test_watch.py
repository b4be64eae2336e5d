"""The watch: which runs are asked to stop, which executors are killed, and what becomes of those that share one."""

import os
from collections.abc import Iterator
from typing import Any, cast

import pytest

from reproq_supervisor.core.runs import Claimed, LeaseNo, RunId
from reproq_supervisor.core.work import TOKEN
from reproq_supervisor.pool import watch as watch_module
from reproq_supervisor.pool.crew import Crew
from reproq_supervisor.pool.held import Held, HeldRuns, Phase
from reproq_supervisor.pool.watch import Limits, Watch
from reproq_supervisor.pool.worker import Executor
from reproq_supervisor.process import clock
from reproq_supervisor.process.deadlines import SoftReason

TIMEOUT_S, GRACE_S, LEASE_S, HEARTBEAT_S = 100.0, 10.0, 60.0, 5.0


class FakeCrew:
    """Executors that are looked at, and what was asked of them."""

    def __init__(self, *executors: Executor) -> None:
        self.executors = list(executors)
        self.killed: list[tuple[Executor, SoftReason | None]] = []
        self.asked: list[tuple[int, SoftReason | None]] = []
        self.buffer: list[Held] = []
        self.busy: Held | None = None

    def busy_run(self, executor: Executor) -> Held | None:
        return self.busy

    def kill(self, executor: Executor, excuse: SoftReason | None = None) -> None:
        self.killed.append((executor, excuse))

    def ask_to_stop(self, executor: Executor, held: Held) -> None:
        self.asked.append((held.seq, held.soft_reason))

    def dismiss(self, executor: Executor) -> None:
        self.put_back(executor.take_back())
        executor.leaving = True

    def put_back(self, runs: list[Held]) -> None:
        self.buffer += runs

    def dispatch(self) -> None:
        pass


class Time:
    """The clocks that the watch reads, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0  # whole, so that a hundred seconds later is a hundred seconds later
        monkeypatch.setattr(watch_module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(clock, "boot_time_s", lambda: self.now)
        monkeypatch.setattr(watch_module.stacks, "ask_for_stacks", lambda pid: None)
        monkeypatch.setattr(Executor, "send_signal", lambda executor, signum: None)


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


class Scene:
    """A watch over one executor with runs in hand."""

    def __init__(self, moment: Time, *, slots: int, runs: int, shared: bool = True) -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.moment = moment
        self.executor = Executor(0, 1, cast("Any", None), -1, write, read, None, most_slots=slots, shared=shared)
        self.runs = [self._held(seq) for seq in range(1, runs + 1)]
        self.executor.in_hand.add(self.runs)
        self.executor.in_hand.note_begun(moment.now)
        os.write(write, b"".join(TOKEN.pack(held.seq) for held in self.runs[slots:]))
        self.crew = FakeCrew(self.executor)
        self.watch = Watch(cast("Crew", self.crew), HeldRuns(), Limits(TIMEOUT_S, GRACE_S, LEASE_S, HEARTBEAT_S))

    def _held(self, seq: int) -> Held:
        claimed = Claimed(RunId(seq), LeaseNo(seq), 1, "default", 0, "app.task", 0.0, 3, b"{}")
        return Held(claimed, lease_until=self.moment.now + 3600, claimed_mono=self.moment.now, phase=Phase.HANDED, seq=seq)

    def after(self, seconds: float) -> None:
        """Let time pass, then look."""
        self.moment.now += seconds
        self.watch.look()

    def close(self) -> None:
        os.close(self.executor.tokens_read)
        os.close(self.executor.tokens_write)


@pytest.fixture
def scene(moment: Time) -> Iterator[Any]:
    made: list[Scene] = []

    def make(**keys: Any) -> Scene:
        made.append(Scene(moment, **keys))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("leaving", [True, False])
def test_an_executor_that_should_leave_and_stays_is_killed(moment: Time, scene: Any, leaving: bool) -> None:
    it = scene(slots=1, runs=0)
    it.executor.leaving = leaving
    it.after(0)
    assert it.crew.killed == []
    it.after(HEARTBEAT_S + 0.1)
    assert it.crew.killed == ([(it.executor, None)] if leaving else [])


def test_only_the_run_over_its_time_is_asked_to_stop(scene: Any) -> None:
    it = scene(slots=3, runs=3)
    it.runs[1].started_mono -= 50
    it.after(TIMEOUT_S - 40)
    assert it.crew.asked == [(2, SoftReason.TIMEOUT)]
    it.after(GRACE_S / 2)
    assert (it.crew.asked, it.crew.killed) == ([(2, SoftReason.TIMEOUT)], [])


def test_an_executor_that_got_the_number_of_a_killed_one_has_its_stacks_written_first(scene: Any) -> None:
    it = scene(slots=3, runs=1)
    for _ in range(2):
        it.after(TIMEOUT_S)
        it.after(GRACE_S)
        assert it.crew.killed == []  # its stacks are asked for
        it.after(0.3)
        assert it.crew.killed == [(it.executor, SoftReason.DRAIN)]
        # It is gone before the watch looks again, and the next one has the same number.
        watch, it = it.watch, scene(slots=3, runs=1)
        it.watch, watch._crew = watch, it.crew


def test_a_lone_run_that_does_not_stop_costs_its_executor_after_the_grace(scene: Any) -> None:
    it = scene(slots=3, runs=1)
    it.after(TIMEOUT_S)
    it.after(GRACE_S)
    it.after(0.3)
    assert it.crew.killed == [(it.executor, SoftReason.DRAIN)]
    assert not it.executor.leaving


def test_those_that_share_with_a_run_that_does_not_stop_have_a_grace_of_their_own(scene: Any) -> None:
    it = scene(slots=3, runs=5)
    it.runs[0].started_mono -= 50
    it.after(TIMEOUT_S - 50)
    it.after(GRACE_S)
    assert it.executor.leaving, "it takes no more work"
    assert it.crew.buffer == it.runs[3:]
    assert it.crew.killed == []
    it.after(GRACE_S - 1)
    assert it.crew.killed == []
    it.after(1)
    it.after(0.3)
    assert it.crew.killed == [(it.executor, SoftReason.DRAIN)]
    assert [held.soft_reason for held in it.runs[:3]] == [SoftReason.TIMEOUT, None, None]


def test_when_the_others_have_ended_the_rest_of_their_grace_is_not_waited_for(scene: Any) -> None:
    it = scene(slots=2, runs=2)
    it.runs[0].started_mono -= 50
    it.after(TIMEOUT_S - 50)
    it.after(GRACE_S)
    it.executor.in_hand.finish(2)
    it.after(0.1)
    it.after(0.3)
    assert it.crew.killed == [(it.executor, SoftReason.DRAIN)]


def test_a_lease_about_to_end_is_answered_softly_first_where_others_share(scene: Any) -> None:
    it = scene(slots=2, runs=2)
    it.runs[0].lease_until = it.moment.now + 10
    it.after(10 - 3.9)
    assert (it.crew.asked, it.crew.killed) == ([(1, SoftReason.LEASE_LOST)], [])
    it.after(1.95)
    assert it.crew.killed == [(it.executor, SoftReason.LEASE_LOST)]


def test_a_lease_about_to_end_kills_at_once_where_nobody_shares(scene: Any) -> None:
    it = scene(slots=1, runs=1, shared=False)
    it.runs[0].lease_until = it.moment.now + 10
    it.after(10 - 3.9)
    assert (it.crew.asked, it.crew.killed) == ([], [])
    it.after(1.95)
    assert it.crew.killed == [(it.executor, SoftReason.LEASE_LOST)]


def test_a_run_that_was_lost_does_not_wait_for_the_grace_of_others(scene: Any) -> None:
    it = scene(slots=2, runs=2)
    it.watch.stop_lost(it.executor, it.runs[0])
    assert it.crew.asked == [(1, SoftReason.LEASE_LOST)]
    it.after(0.6)
    it.after(0.3)
    assert it.crew.killed == [(it.executor, SoftReason.DRAIN)]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_an_executor_with_a_free_slot_that_starts_nothing_is_killed_after_a_heartbeat(scene: Any, left: int) -> None:
    it = scene(slots=3, runs=4)
    for seq in range(1, 4 - left):
        it.executor.in_hand.finish(seq)
    it.crew.busy = it.runs[2] if left == 2 else None
    it.after(0)
    it.after(HEARTBEAT_S - 0.1)
    assert it.crew.killed == []
    it.after(0.2)
    it.after(0.3)
    assert it.crew.killed == [(it.executor, SoftReason.DRAIN)]
    # Who is known to be the cause answers for it; the others are released.
    reasons = [held.soft_reason for held in it.executor.in_hand]
    assert reasons == {0: [None], 1: [SoftReason.BLOCKED, None], 2: [None, SoftReason.BLOCKED, None]}[left]


def test_work_waits_behind_short_tasks_but_not_behind_long_ones(scene: Any) -> None:
    it = scene(slots=2, runs=3)
    it.runs[0].started_mono -= 1
    it.after(0)
    assert it.crew.buffer == []
    it.after(0.1)
    assert it.crew.buffer == it.runs[2:]


def test_a_drain_asks_every_run_and_shortens_the_time_of_those_asked_before(scene: Any) -> None:
    it = scene(slots=2, runs=2)
    it.runs[0].started_mono -= 50
    it.after(TIMEOUT_S - 50)
    it.watch.stop_all(SoftReason.DRAIN, 1.0)
    assert it.crew.asked == [(1, SoftReason.TIMEOUT), (2, SoftReason.DRAIN)]
    it.after(1.0)
    it.after(0.3)
    assert it.crew.killed == [(it.executor, SoftReason.DRAIN)]
