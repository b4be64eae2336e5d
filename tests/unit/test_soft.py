"""The soft signal hits the hand-out that it is meant for, and no other, whenever it comes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from reproq_supervisor.core.work import Verdict, Work
from reproq_supervisor.executor.api import SoftTimeout
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft import SoftSignal
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, DeadlineTable, SoftReason

PATH = "tests.unit.test_soft.task"

# Asks whatever runs at the moment to stop; by the time the signal arrives it is often another.
_NAG = """
import mmap, os, signal, struct, sys, time
fd, pid = map(int, sys.argv[1:])
shared = mmap.mmap(fd, 128)
while not shared[72]:
    seq, = struct.unpack_from("=Q", shared, 64)
    if seq:
        struct.pack_into("=Q", shared, 16, 1)
        struct.pack_into("=Q", shared, 8, seq)
        os.kill(pid, signal.SIGUSR1)
    time.sleep(0.00002)
"""


def task(kind: str) -> str:
    """Take next to no time, in different ways."""
    match kind:
        case "python":
            for _ in range(20):
                pass
        case "sleep":
            time.sleep(0.0001)  # the task's work
    return kind


async def coroutine() -> str:
    """Take next to no time in a coroutine."""
    await asyncio.sleep(0)
    return "coroutine"


@pytest.fixture
def table() -> Iterator[DeadlineTable]:
    table = DeadlineTable.create(2)
    yield table
    os.close(table.fd)


@pytest.fixture
def soft(table: DeadlineTable) -> Iterator[SoftSignal]:
    before = signal.getsignal(SOFT_SIGNAL)
    soft = SoftSignal(table, 0)
    soft.install()
    yield soft
    signal.signal(SOFT_SIGNAL, before)


@pytest.mark.parametrize("kind", ["python", "sleep"])
def test_a_late_signal_never_hits_the_next_task(table: DeadlineTable, soft: SoftSignal, kind: str) -> None:
    resolver, allowed = Resolver(["*"]), {Verdict.SUCCEED, Verdict.STOPPED}
    os.set_inheritable(table.fd, True)
    second_row = memoryview(table._memory)[64:]
    nag = subprocess.Popen([sys.executable, "-c", _NAG, str(table.fd), str(os.getpid())], pass_fds=[table.fd])
    stopped = 0
    try:
        now = time.monotonic()
        end, hangs = now + 1.5, now + 60.0
        seq = 0
        # On a busy machine it takes longer until enough were asked in time, and enough were not.
        while time.monotonic() < (end if min(stopped, seq - stopped) > 20 else hangs):
            seq += 1
            second_row[:8] = seq.to_bytes(8, sys.byteorder)  # says what runs, as the shard would know it
            result = run_attempt(Work(seq, seq, 1, 1, 0, "default", PATH, b'{"args": ["%s"]}' % kind.encode()), resolver, soft, 1000)
            assert result.verdict in allowed
            assert result.seq == seq
            stopped += result.verdict is Verdict.STOPPED
    finally:
        second_row[8] = 1
        nag.wait(10)
        second_row.release()
    assert stopped > 20, "hardly any was asked in time: the test tests nothing"
    assert seq - stopped > 20


def test_nothing_is_raised_between_two_tasks(table: DeadlineTable, soft: SoftSignal) -> None:
    soft.begin(1)
    soft.end()
    table.set_soft(0, 1, SoftReason.TIMEOUT)
    try:
        signal.raise_signal(SOFT_SIGNAL)
    except SoftTimeout as error:
        pytest.fail(f"it was meant for a task that has ended: {error!r}")


def test_a_task_learns_why_it_is_asked(table: DeadlineTable, soft: SoftSignal) -> None:
    for reason in SoftReason:
        soft.begin(reason + 10)
        table.set_soft(0, reason + 10, reason)
        with pytest.raises(SoftTimeout) as caught:
            signal.raise_signal(SOFT_SIGNAL)
        soft.end()
        assert caught.value.reason == reason.name.lower()


def ask(table: DeadlineTable, seq: int) -> None:
    table.set_soft(0, seq, SoftReason.TIMEOUT)
    signal.raise_signal(SOFT_SIGNAL)


def test_a_coroutine_is_cancelled_whoever_runs_when_the_signal_comes(table: DeadlineTable, soft: SoftSignal) -> None:
    ends = []

    async def main() -> None:
        try:
            await asyncio.sleep(60)  # the task's work, until it is stopped
        finally:
            ends.append("cleaned up")

    async def with_callback() -> None:
        asyncio.get_running_loop().call_soon(ask, table, 1)
        await main()

    async def with_other_task() -> None:
        async def other() -> None:
            ask(table, 2)

        task = asyncio.create_task(other())
        try:
            await main()
        finally:
            await asyncio.gather(task, return_exceptions=True)

    async def by_itself() -> None:
        try:
            ask(table, 3)
        finally:
            ends.append("cleaned up")

    for seq, coroutine_ in ((1, with_callback), (2, with_other_task), (3, by_itself)):
        soft.begin(seq)
        with pytest.raises(SoftTimeout):
            soft.run_coroutine(coroutine_())
        soft.end()
    assert ends == ["cleaned up"] * 3


def test_a_coroutine_that_ends_in_spite_of_being_asked_has_its_value(table: DeadlineTable, soft: SoftSignal) -> None:
    async def stubborn() -> str:
        asyncio.get_running_loop().call_soon(ask, table, 1)
        try:
            await asyncio.sleep(60)  # the task's work, until it is stopped
        except asyncio.CancelledError:
            return "done anyway"
        return "never"

    soft.begin(1)
    assert soft.run_coroutine(stubborn()) == "done anyway"
    soft.end()


def test_a_coroutine_that_cancels_itself_is_not_taken_for_asked(soft: SoftSignal) -> None:
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    soft.begin(1)
    with pytest.raises(asyncio.CancelledError):
        soft.run_coroutine(cancels_itself())
    soft.end()
