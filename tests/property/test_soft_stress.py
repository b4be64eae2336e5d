"""Thousands of runs of shared executors, many of them asked to stop at any moment: none is hit by what was meant for another."""

import random

import pytest

from reproq_supervisor.core.work import Verdict
from reproq_supervisor.process.deadlines import SoftReason
from tests.support.lone_executor import held_run, lone_executor
from tests.support.runs import SHARED

COUNT = 2000
SLOTS = 4
ROUNDS = [*[1, 20, 400] * 5, 20_000]
"""Most end before anybody can ask; some take longer than the interpreter lets a thread run."""


@pytest.mark.parametrize("mode", ["thread", "async"])
@pytest.mark.parametrize("task", ["count_a_little", "count_in_coroutine"])
def test_only_those_that_were_asked_are_stopped_and_each_result_is_its_own(mode: str, task: str) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    waiting = [held_run(number, SHARED + task, f'{{"args": [{number}, {draw.choice(ROUNDS)}]}}') for number in range(COUNT, 0, -1)]
    asked: set[int] = set()
    with lone_executor(mode, SLOTS) as executor:
        while waiting or executor.end.in_hand:
            while waiting and len(executor.end.in_hand) < 3 * SLOTS:
                executor.hand([waiting.pop()])
            for held in executor.end.running():
                if held.seq not in asked and draw.random() < 0.2:
                    asked.add(held.seq)
                    executor.end.send_stop(held.seq, SoftReason.TIMEOUT)
            executor.read(0.0005)
            executor.end.flush()
            assert not executor.end.eof, f"it ended, seed {seed}"
        results = list(executor.results)
    assert len(results) == COUNT, f"seed {seed}"
    stopped = {held.seq for held, result in results if result.verdict is Verdict.STOPPED}
    assert stopped <= asked, f"seed {seed}"
    assert all(result.body == str(held.claimed.result_id).encode() for held, result in results if result.verdict is Verdict.SUCCEED)
    assert {result.verdict for _, result in results} <= {Verdict.SUCCEED, Verdict.STOPPED}, f"seed {seed}"
    assert stopped, "none was asked in time: the test tests nothing"
