"""What `explain` says of a pool's work and of its queues."""

from typing import Any

import pytest

from reproq_supervisor.cli.daemon.explain_view import queue_lines, work_line
from reproq_supervisor.store.commands import QueueStats


def pool(*snapshots: dict[str, Any]) -> dict[str, Any]:
    return {"snapshots": {f"mail/{index}@1": snapshot for index, snapshot in enumerate(snapshots)}}


def test_the_work_of_all_shards_is_one_line() -> None:
    one = {"executors": {"ready": 2}, "running": 1, "held": 3, "claimed_total": 10, "completed_total": 6, "failed_total": 1}
    assert list(work_line("mail", pool(one, one))) == [
        "mail runs 2 tasks in 4 executors, 4 more in hand. So far: 20 claimed, 12 done, 2 failed."
    ]


def test_the_slots_of_shared_executors_are_told() -> None:
    one = {"executors": {"ready": 2}, "running": 9, "slots": 16, "held": 9}
    assert next(work_line("mail", pool(one))).startswith("mail runs 9 tasks in 2 executors with 16 slots. ")


@pytest.mark.parametrize(("isolation", "what"), [("fork", "fork"), ("exec", "program")])
def test_processes_for_one_task_are_told(isolation: str, what: str) -> None:
    one = {"executors": {"ready": 2}, "running": 1, "slots": 2, "held": 1, "isolation": isolation}
    assert next(work_line("mail", pool(one))).startswith(f"mail runs 1 task, 2 at most, each in a {what} of its own. ")


def test_a_pool_whose_shards_have_not_spoken_says_nothing() -> None:
    assert not list(work_line("mail", pool()))


def test_an_idle_queue_has_nothing_to_hide() -> None:
    assert list(queue_lines({"mail": QueueStats()})) == ["Queue mail: 0 ready, 0 running."]


def test_a_queue_that_stands_still_says_why() -> None:
    queue = QueueStats(ready=3, running=1, parked=2, waiting=4, oldest_ready_s=75.4, paused="upgrade")
    assert list(queue_lines({"mail": queue})) == [
        "Queue mail: 3 ready, the oldest due for 1m15s, 1 running, 2 parked (due later, or waiting for room in a key or rate), "
        "4 waiting for other tasks. It is paused (upgrade); back to work by: reproq-supervisor queue resume mail"
    ]
