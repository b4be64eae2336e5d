"""The token pipe: whatever is handed out and taken back, and whenever, a task starts at most once and is never lost."""

import random

import pytest

from reproq_supervisor.core.work import Verdict
from reproq_supervisor.pool.held import Held
from tests.support.lone_executor import held_run, lone_executor

NOOP = "workers.demo.tasks.echo"
COROUTINE = "workers.demo.tasks.coroutine_echo"
SHARED = [("thread", 4), ("async", 4)]
every_mode = pytest.mark.parametrize(("mode", "slots"), [("process", 1), *SHARED])


def runs(count: int, path: str = NOOP) -> list[Held]:
    return [held_run(number, path, f'{{"args": [{number}]}}') for number in range(1, count + 1)]


@every_mode
@pytest.mark.parametrize("path", [NOOP, COROUTINE])
def test_no_run_is_lost_or_doubled_over_thousands_of_take_backs(mode: str, slots: int, path: str) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    wanted = runs(3000, path)
    waiting = list(reversed(wanted))
    taken_back = took_some = 0
    with lone_executor(mode, slots) as executor:
        while waiting or executor.end.in_hand:
            for _ in range(draw.randint(0, 3)):
                batch = [waiting.pop() for _ in range(min(len(waiting), draw.randint(1, 8)))]
                if batch:
                    executor.hand(batch)
            executor.read(draw.choice([0, 0, 0.0005]))
            executor.end.flush()
            back = executor.end.take_back() if draw.random() < 0.6 else []
            taken_back += len(back)
            took_some += bool(back)
            assert not {id(held) for held in back} & {id(held) for held in executor.end.in_hand}
            waiting += reversed(back)
        ran = [held.claimed.result_id for held, _ in executor.results]
    assert sorted(ran) == [held.claimed.result_id for held in wanted], f"seed {seed}"
    assert {result.verdict for _, result in executor.results} == {Verdict.SUCCEED}
    assert took_some > 50, "hardly anything was taken back: the test tests nothing"


def test_every_result_belongs_to_its_run() -> None:
    with lone_executor() as executor:
        executor.hand(runs(300))
        assert [result.body == b'{"args":[%d],"kwargs":{}}' % held.claimed.result_id for held, result in executor.wait_results(300)] == [
            True
        ] * 300


@every_mode
def test_what_is_left_in_the_pipe_of_a_killed_executor_never_started(mode: str, slots: int) -> None:
    for kill_after in range(1, 40, 5):
        with lone_executor(mode, slots) as executor:
            executor.hand(runs(2000)[:500])
            executor.wait_results(kill_after)
            executor.process.kill()
            executor.wait_exit()
            executor.results += [(held, result) for held, result, _ in executor.end.read_results(all_of_it=True)]
            unstarted = {held.claimed.result_id for held in executor.end.take_back()}
            ended = {held.claimed.result_id for held, _ in executor.results}
            left = {held.claimed.result_id for held in executor.end.in_hand}
            assert len(left) <= slots
            assert ended | left | unstarted == set(range(1, 501))
            assert max(ended | left) < min(unstarted, default=501)


def test_unstarted_is_exact_while_a_task_runs() -> None:
    with lone_executor() as executor:
        executor.hand([held_run(1, "workers.demo.tasks.nap", '{"args": [30]}'), *runs(10)[1:]])
        executor.wait_unstarted(9)
        assert [held.claimed.result_id for held in executor.end.take_back()] == list(range(2, 11))
        assert executor.end.unstarted() == 0
        assert [held.claimed.result_id for held in executor.end.in_hand] == [1]


@pytest.mark.parametrize(("mode", "slots"), SHARED)
def test_unstarted_is_exact_while_every_slot_has_a_task(mode: str, slots: int) -> None:
    naps = [held_run(number, "workers.demo.tasks.nap", '{"args": [30]}') for number in range(1, slots + 1)]
    with lone_executor(mode, slots) as executor:
        executor.hand([*naps, *runs(10)[slots:]])
        executor.wait_unstarted(10 - slots)
        assert [held.claimed.result_id for held in executor.end.take_back()] == list(range(slots + 1, 11))
        assert executor.end.running() == list(executor.end.in_hand) == naps


@pytest.mark.parametrize(("mode", "slots"), SHARED)
def test_a_dismissed_executor_of_several_ends_when_the_last_of_them_has(mode: str, slots: int) -> None:
    with lone_executor(mode, slots) as executor:
        executor.hand([held_run(1, "workers.demo.tasks.nap", '{"args": [0.3]}'), *runs(3)[1:]])
        executor.wait_unstarted(0)
        executor.end.dismiss()
        assert {result.verdict for _, result in executor.wait_results(3)} == {Verdict.SUCCEED}
        assert executor.wait_exit() == 0


def test_a_dismissed_executor_finishes_the_task_whose_frame_is_still_on_its_way() -> None:
    large = '{"args": ["' + "x" * 3_000_000 + '"]}'
    with lone_executor() as executor:
        executor.hand([held_run(1, "workers.demo.tasks.nap", '{"args": [0.3]}')])
        executor.wait_unstarted(0)
        assert not executor.hand([held_run(2, "tests.support.odd_tasks.length", large)]), "the frame fits: the test tests nothing"
        executor.wait_results(1, flush=False)
        executor.wait_unstarted(0)  # it holds the token of the second, and waits for the rest of the frame
        executor.end.dismiss()
        assert [result.verdict for _, result in executor.wait_results(2)] == [Verdict.SUCCEED] * 2
        assert executor.wait_exit() == 0
