"""The soft signal of threads hits the run that it is meant for, and no other, whenever it comes."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reproq_supervisor.core.work import Result, Verdict, Work
from reproq_supervisor.executor.api import SoftTimeout
from reproq_supervisor.executor.attempt import run_attempt
from reproq_supervisor.executor.resolve import Resolver
from reproq_supervisor.executor.soft_threads import ThreadSoft
from reproq_supervisor.process.deadlines import SoftReason

PATH = "tests.unit.test_soft_threads.task"
THREADS = 4
ENOUGH = 400


def task(kind: str) -> str:
    """Take next to no time, in different ways."""
    match kind:
        case "python":
            for _ in range(50):
                pass
        case "sleep":
            time.sleep(0.0001)  # the task's work
        case "swallow":
            try:
                for _ in range(50):
                    pass
            except SoftTimeout:
                pass
    return kind


async def coroutine_task() -> str:
    """Take next to no time in a coroutine."""
    await asyncio.sleep(0)
    return "coroutine"


def attempt(soft: ThreadSoft, seq: int, path: str = PATH, args: str = '["python"]') -> Result:
    return run_attempt(Work(seq, seq, 1, 1, 0, "default", path, f'{{"args": {args}}}'.encode()), Resolver(["*"]), soft, 1000)


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Let threads take turns as often as they can, so that everything meets everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("many_switches")
@pytest.mark.parametrize("kind", ["python", "sleep", "swallow"])
def test_of_thousands_of_runs_none_is_hit_by_what_was_meant_for_another(kind: str) -> None:
    soft, running, asked = ThreadSoft(), [0] * THREADS, set[int]()
    results: list[Result] = []
    stray: list[BaseException] = []
    done = threading.Event()
    end = time.monotonic() + 60

    def work(number: int) -> None:
        seq = number
        try:
            while not done.is_set():
                seq += THREADS
                running[number] = seq
                results.append(attempt(soft, seq, args=f'["{kind}"]'))
                for _ in range(10):
                    pass  # a stray exception would come here at the latest
        except BaseException as error:
            stray.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    turn = 0
    while len(asked) < ENOUGH and time.monotonic() < end:
        turn += 1
        seq = running[turn % THREADS]
        if seq and seq not in asked:
            asked.add(seq)  # first: a run that was hit must be known to have been asked
            soft.stop(seq, SoftReason.TIMEOUT)
        time.sleep(0)
    done.set()
    for thread in threads:
        thread.join()
    assert stray == []
    stopped = {result.seq for result in results if result.verdict is Verdict.STOPPED}
    assert stopped <= asked
    assert {result.verdict for result in results} <= {Verdict.SUCCEED, Verdict.STOPPED}
    assert len(asked) == ENOUGH
    assert len(results) > ENOUGH
    assert stopped, "none was asked in time: the test tests nothing"


def in_thread(run: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def spin() -> None:
    """Compute for a minute. In a frame of its own: some interpreters miss the handlers of the very frame in which the exception comes."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        sum(range(10))


def spin_until_stopped(soft: ThreadSoft, seq: int, reason: SoftReason) -> SoftTimeout:
    """Begin a run in a thread, ask it to stop while it spins, and return what it saw."""
    seen: list[SoftTimeout] = []
    begun = threading.Event()

    def run() -> None:
        soft.begin(seq)
        try:
            begun.set()
            spin()
        except SoftTimeout as error:
            seen.append(error)
        finally:
            soft.end()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    soft.stop(seq, reason)
    thread.join(30)
    return seen[0]


def test_a_task_learns_why_it_is_asked() -> None:
    soft = ThreadSoft()
    for reason in SoftReason:
        error = spin_until_stopped(soft, reason + 10, reason)
        assert (type(error).__name__, error.reason) == ("SoftTimeout", reason.name.lower())


def test_a_run_that_is_asked_before_it_begins_does_not_begin() -> None:
    soft = ThreadSoft()
    soft.stop(5, SoftReason.CANCEL)
    assert attempt(soft, 5).verdict is Verdict.STOPPED
    assert attempt(soft, 6).verdict is Verdict.SUCCEED
    assert attempt(soft, 5).verdict is Verdict.SUCCEED, "it is asked once"


def test_nothing_is_left_of_requests_that_came_too_late() -> None:
    soft = ThreadSoft()
    for seq in range(5000):
        attempt(soft, seq)
        soft.stop(seq, SoftReason.TIMEOUT)
    assert len(soft._early) <= 1001
    assert soft._tickets == {}


def test_what_was_sent_and_has_not_come_is_taken_away_at_the_end() -> None:
    soft, ends = ThreadSoft(), 0

    def run() -> None:
        nonlocal ends
        soft.begin(1)
        asker = threading.Thread(target=soft.stop, args=(1, SoftReason.TIMEOUT))
        try:
            asker.start()
            asker.join()
        except SoftTimeout:
            pass
        soft.end()
        for _ in range(1000):
            pass  # a stray exception would come here at the latest
        ends += 1

    for _ in range(200):
        in_thread(run)
    assert ends == 200


def test_a_coroutine_in_a_thread_is_cancelled() -> None:
    soft, begun, ends = ThreadSoft(), threading.Event(), []

    async def main() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)  # the task's work, until it is stopped
        finally:
            ends.append("cleaned up")

    def run() -> None:
        soft.begin(1)
        try:
            with pytest.raises(SoftTimeout):
                soft.run_coroutine(main())
        finally:
            soft.end()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    soft.stop(1, SoftReason.TIMEOUT)
    thread.join(30)
    assert ends == ["cleaned up"]


def test_a_coroutine_runs_to_its_end_in_a_thread() -> None:
    result = attempt(ThreadSoft(), 1, "tests.unit.test_soft_threads.coroutine_task", "[]")
    assert (result.verdict, result.body) == (Verdict.SUCCEED, b'"coroutine"')


def stop_from_elsewhere(soft: ThreadSoft, seq: int) -> None:
    """Ask it to stop from another thread, and go on when that was done, as a task's thread may in any of its steps."""
    asker = threading.Thread(target=soft.stop, args=(seq, SoftReason.TIMEOUT))
    asker.start()
    asker.join(30)
    for _ in range(1000):
        pass  # an exception that was sent would come here at the latest


@pytest.mark.parametrize("when", ["before its task", "after its task"])
def test_no_exception_comes_while_a_loop_is_at_work(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, run_in_loop = ThreadSoft(), asyncio.run

    def run_beside_a_request(main: Any) -> Any:
        if when == "before its task":
            stop_from_elsewhere(soft, 1)
        try:
            return run_in_loop(main)
        finally:
            if when == "after its task":
                stop_from_elsewhere(soft, 1)

    monkeypatch.setattr(asyncio, "run", run_beside_a_request)
    result = attempt(soft, 1, "tests.unit.test_soft_threads.coroutine_task", "[]")
    assert result.verdict is (Verdict.STOPPED if when == "before its task" else Verdict.SUCCEED)
    assert soft._tickets == {}
