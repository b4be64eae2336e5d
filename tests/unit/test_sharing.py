"""What the supervisor tells its shards of what they share."""

from typing import Any

from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.sharing import SHARE_EVERY_S
from tests.sim.settings import pool, settings
from tests.support.stepped_core import SteppedCore, running

MACHINE = {"processors": 4.0, "memory_left_bytes": 10_000}

STEADY = {"size": 1, "min": 1, "max": 20, "reason": "steady", "want": 0, "use": 1, "machine": MACHINE}


def sized(**changes: Any) -> dict[str, Any]:
    sizing = {**STEADY, "takes": {"processors": 0.0, "memory": 100}, **changes}
    return {"sizing": sizing, "executors": {"pids": list(range(int(sizing["size"])))}}


def two_pools(**budget: Any) -> SteppedCore:
    size = {"min": 1, "max": 20}
    return running(settings({"mail": pool(executors=size, weight=3), "bulk": pool(executors=size)}, budget=budget))


def say(core: SteppedCore, name: str, **changes: Any) -> None:
    core.say(core.process(name), "snapshot", snapshot=sized(**changes))


def granted(core: SteppedCore, name: str) -> list[int | None]:
    return [message["executors"] for message in core.sent(core.process(name), "budget")]


def start_of(core: SteppedCore, process: Process) -> dict[str, Any]:
    return core.sent(process, "start")[0]


def test_a_pool_alone_is_told_nothing() -> None:
    core = running(settings({"mail": pool(executors={"min": 1, "max": 20}), "bulk": pool(executors={"min": 2, "max": 2})}))
    say(core, "mail/0", use=20)
    assert granted(core, "mail/0") == []
    assert start_of(core, core.process("mail/0"))["budget"] is None


def test_where_something_is_shared_a_new_shard_begins_with_its_least() -> None:
    core = two_pools(executors=10)
    assert start_of(core, core.process("mail/0"))["budget"] == 1


def test_a_budget_is_shared_by_weight_and_told_when_it_changes() -> None:
    core = two_pools(executors=8)
    say(core, "bulk/0", use=20)
    core.wait(1.0)
    say(core, "mail/0", use=20)
    assert (granted(core, "mail/0")[-1], granted(core, "bulk/0")[-1]) == (6, 2)
    count = len(granted(core, "mail/0"))
    core.wait(1.0)
    say(core, "mail/0", use=20)
    assert len(granted(core, "mail/0")) == count


def test_enough_for_all_is_no_bound() -> None:
    core = two_pools()
    say(core, "bulk/0")
    core.wait(1.0)
    say(core, "mail/0")
    assert granted(core, "mail/0") == [None]


def test_one_that_is_held_back_is_answered_at_once() -> None:
    core = two_pools(executors=22)
    say(core, "bulk/0")
    core.wait(1.0)
    say(core, "mail/0")
    before = granted(core, "mail/0")[-1]
    assert before is not None
    core.wait(SHARE_EVERY_S / 10)
    say(core, "mail/0", size=before, want=18, use=18)
    assert granted(core, "mail/0")[-1] == before
    say(core, "mail/0", size=before, want=18, use=18, reason="budget")
    assert granted(core, "mail/0")[-1] == 18


def test_a_pool_of_a_fixed_size_counts() -> None:
    size = {"min": 1, "max": 20}
    core = running(settings({"mail": pool(executors=size), "bulk": pool(executors={"min": 6, "max": 6})}, budget={"executors": 10}))
    core.say(core.process("bulk/0"), "snapshot", snapshot={"sizing": None, "executors": {"pids": [1, 2, 3, 4, 5, 6]}})
    core.wait(1.0)
    say(core, "mail/0", use=20)
    assert granted(core, "mail/0")[-1] == 4


def test_of_a_fixed_pool_for_single_use_those_that_wait_do_not_count() -> None:
    fresh = pool(executors={"min": 3, "max": 3}, isolation="fork")
    core = running(settings({"mail": pool(executors={"min": 1, "max": 20}), "fresh": fresh}, budget={"executors": 10}))
    executors = {"pids": [1, 2, 3, 4, 5, 6], "busy": 3}
    core.say(core.process("fresh/0"), "snapshot", snapshot={"sizing": None, "executors": executors})
    core.wait(1.0)
    say(core, "mail/0", use=20)
    assert granted(core, "mail/0")[-1] == 7


def test_executors_of_a_shard_that_leaves_count_until_they_are_gone() -> None:
    core = two_pools(executors=12)
    say(core, "bulk/0", size=8, use=8)
    core.asked("drain", pool="mail")
    core.ask("restart", pool="bulk")
    say(core, "mail/0", use=20, reason="budget")
    assert granted(core, "mail/0")[-1] <= 12 - 8  # type: ignore[operator]


def test_memory_is_what_is_left_and_what_they_have() -> None:
    core = two_pools()
    say(core, "bulk/0", size=2, takes={"processors": 0.0, "memory": 1000}, use=20)
    core.wait(1.0)
    say(core, "mail/0", size=2, takes={"processors": 0.0, "memory": 1000}, use=20)
    # 10,000 left and 4,000 taken: fourteen, three quarters of them here.
    assert granted(core, "mail/0")[-1] == 11
    assert granted(core, "bulk/0")[-1] == 3


def test_it_is_explained() -> None:
    core = two_pools(executors=8)
    say(core, "bulk/0", use=20)
    core.wait(1.0)
    say(core, "mail/0", use=20)
    lines = core.asked("explain", pool="mail")["lines"]
    assert "mail/0 may have 6 executors now, for the budget has no more executors (weight 3 of 4)." in lines


def test_a_budget_that_is_taken_away_is_told() -> None:
    core = two_pools(executors=8)
    say(core, "bulk/0", use=20)
    core.wait(1.0)
    say(core, "mail/0", use=20)
    core.ask("reload")
    size = {"min": 1, "max": 20}
    core.load(settings({"mail": pool(executors=size, weight=3), "bulk": pool(executors=size)}, budget={}))
    core.wait(1.0)
    say(core, "mail/0", use=20)
    assert granted(core, "mail/0")[-1] is None
