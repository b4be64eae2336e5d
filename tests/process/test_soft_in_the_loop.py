"""A soft signal that comes in the middle of the event loop's own code stops the run that it is for, and nobody else waits for ever."""

from pathlib import Path

import pytest

from reproq_supervisor.core.work import Verdict
from reproq_supervisor.process.deadlines import SOFT_SIGNAL, SoftReason
from tests.support.eventually import eventually
from tests.support.lone_executor import LoneExecutor, held_run, lone_executor
from tests.support.runs import SHARED

HANG_S = 60


def ask(executor: LoneExecutor, mode: str) -> None:
    (held,) = executor.end.running()
    if mode == "process":
        executor.table.set_soft(0, held.seq, SoftReason.TIMEOUT)
        executor.end.send_signal(SOFT_SIGNAL)
    else:
        executor.end.send_stop(held.seq, SoftReason.TIMEOUT)


@pytest.mark.parametrize("mode", ["process", "async"])
def test_a_signal_while_the_loop_schedules_the_next_step_loses_no_run(mode: str, tmp_path: Path) -> None:
    began = tmp_path / "began"
    with lone_executor(mode, 1 if mode == "process" else 2) as executor:
        executor.hand([held_run(1, f"{SHARED}meet_the_signal_in_call_soon", f'{{"args": ["{began}"]}}')])
        eventually(began.exists, timeout=HANG_S, what="it runs")
        ask(executor, mode)
        ((_, result),) = executor.wait_results(1, timeout=HANG_S)
        assert result.verdict is Verdict.STOPPED
        executor.hand([held_run(2, f"{SHARED}count_in_coroutine", '{"args": [5, 1]}')])
        assert executor.wait_results(2, timeout=HANG_S)[1][1].body == b"5"


def test_a_signal_while_a_task_wakes_another_waits_until_that_is_done(tmp_path: Path) -> None:
    began, woken = tmp_path / "began", tmp_path / "began.woken"
    with lone_executor("async", 2) as executor:
        executor.hand([held_run(1, f"{SHARED}meet_the_signal_in_a_lock", f'{{"args": ["{began}"]}}')])
        eventually(began.exists, timeout=HANG_S, what="it runs")
        ask(executor, "async")
        ((_, result),) = executor.wait_results(1, timeout=HANG_S)
        assert result.verdict is Verdict.STOPPED
        assert woken.exists()
