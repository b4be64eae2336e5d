"""`explain`: why a pool is as it is, in words that name what to do."""

import pytest

from reproq_supervisor.core.policy.sizing import SizeReason
from reproq_supervisor.core.policy.slots import SlotReason
from reproq_supervisor.core.supervision.facts import Orphan, SignalName
from tests.sim.settings import pool, settings
from tests.support.stepped_core import SteppedCore, running

MIB = 1024 * 1024


def lines(core: SteppedCore, pool: str = "mail") -> list[str]:
    """Ask about a pool."""
    found: list[str] = core.asked("explain", pool=pool)["lines"]
    return found


def test_a_pool_that_works_says_since_when() -> None:
    core = running()
    core.wait(12.0)
    assert lines(core) == ["mail/0 (pid 102) has been running for 12 s."]
    core.say(core.process("mail/0"), "snapshot", snapshot={"why": "4 of 4 executors are busy"})
    assert lines(core) == ["mail/0 (pid 102) has been running for 12 s. It says: 4 of 4 executors are busy"]


def test_times_below_ten_seconds_are_told_in_tenths() -> None:
    core = running()
    core.wait(2.5)
    assert lines(core) == ["mail/0 (pid 102) has been running for 2.5 s."]


def test_a_boot_says_how_long_it_takes_and_may_take() -> None:
    core = SteppedCore()
    core.wait(3.0)
    assert lines(core) == ["mail/0 (pid 102) has been starting for 3.0 s and is killed after 20 s."]


def test_a_missing_database_is_told_with_its_error() -> None:
    core = running()
    core.say(core.process("mail/0"), "snapshot", snapshot={"database": {"up": False, "since_s": 75.0, "error": "connection refused"}})
    assert lines(core)[1] == "mail/0 has been without the database for 75 s: connection refused."
    core.say(core.process("mail/0"), "snapshot", snapshot={"database": {"up": False}})
    assert lines(core)[1] == "mail/0 has been without the database for 0.0 s."
    core.say(core.process("mail/0"), "snapshot", snapshot={"database": {"up": True}})
    assert len(lines(core)) == 1


def test_recycling_is_told_with_its_rules_and_who_waits() -> None:
    core = running()
    core.say(core.process("mail/0"), "snapshot", snapshot={"recycled": {"tasks": 4, "rss": 2, "age": 0}, "recycling": 0})
    assert lines(core)[1:] == ["mail/0 has recycled executors: 4 by tasks, 2 by rss."]
    core.say(core.process("mail/0"), "snapshot", snapshot={"recycled": {"tasks": 0, "rss": 0, "age": 0}, "recycling": 3})
    assert lines(core)[1:] == ["mail/0 has recycled executors: none; 3 more wait for their turn."]


def test_the_size_is_told_with_its_reason_and_figures() -> None:
    core = running()
    figures = {"rate_per_s": 8.2, "service_s": 0.5, "for_rate": 4.82, "for_backlog": 0.0}
    core.say(
        core.process("mail/0"), "snapshot", snapshot={"sizing": {"size": 6, "min": 1, "max": 8, "reason": "patience", "want": 5, **figures}}
    )
    assert lines(core)[1:] == [
        "mail/0 has 6 executors (1 to 8), though it wants fewer now; it shrinks when it did so for two minutes or longer. "
        "It wants 5: 4.82 for 8.2 tasks a second of 0.5 s each, 0.0 for what waits."
    ]
    figures = {"rate_per_s": 0.0, "service_s": 1.0, "for_rate": 0.0, "for_backlog": 0.0}
    core.say(
        core.process("mail/0"), "snapshot", snapshot={"sizing": {"size": 1, "min": 1, "max": 8, "reason": "steady", "want": 0, **figures}}
    )
    assert lines(core)[1].startswith("mail/0 has 1 executor (1 to 8), and stays so. It wants 0: ")
    core.say(core.process("mail/0"), "snapshot", snapshot={"sizing": None})
    assert len(lines(core)) == 1


def test_every_reason_for_a_size_has_its_words() -> None:
    core = running()
    for reason in SizeReason:
        core.say(core.process("mail/0"), "snapshot", snapshot={"sizing": {"reason": reason.value}})
        assert "as it says" not in lines(core)[1]


@pytest.mark.parametrize(
    ("takes", "machine", "said"),
    [
        (
            {"processors": 0.89},
            {"crowded": 0.43},
            "for a processor: each takes 0.89 of 2, for which somebody waited 43% of the time. It wants",
        ),
        ({"processors": 1.0}, {}, "for a processor: each takes 1 of 2. It wants"),
        ({}, {"memory_left_bytes": 100 * MIB}, "for memory: each takes 64 MiB, 100 MiB are left. It wants"),
        ({"processors": 1.0}, {"memory_left_bytes": 10 * MIB}, "for memory: each takes 64 MiB, 10 MiB are left. It wants"),
        ({}, {"memory_stalled": 0.2}, "for memory: each takes 64 MiB, 8192 MiB are left. It wants"),
        ({}, {"memory_stalled": 0.2, "memory_left_bytes": None}, "for memory: each takes 64 MiB. It wants"),
    ],
)
def test_a_pool_that_does_not_grow_on_a_full_machine_says_of_what_it_is_full(
    takes: dict[str, float], machine: dict[str, float | None], said: str
) -> None:
    core = running()
    sizing = {
        "reason": "saturated",
        "takes": {"processors": 0.0, "memory": 64 * MIB, **takes},
        "machine": {"processors": 2.0, "memory_left_bytes": 8192 * MIB, "crowded": 0.0, "memory_stalled": 0.0, **machine},
    }
    core.say(core.process("mail/0"), "snapshot", snapshot={"sizing": {"size": 1, **sizing}})
    assert f"for more would only wait {said}" in lines(core)[1]


def test_the_slots_are_told_with_what_the_last_step_brought() -> None:
    core = running()
    figures = {"slots": 24, "min": 1, "max": 100, "work_s_per_s": 19.63}
    core.say(core.process("mail/0"), "snapshot", snapshot={"slot_sizing": {**figures, "reason": "gain", "gained": 0.082}})
    assert lines(core)[1:] == [
        "mail/0 runs 24 at once in each executor (1 to 100), for the last step brought 8.2% more. Each got 19.63 s of work done a second."
    ]
    core.say(core.process("mail/0"), "snapshot", snapshot={"slot_sizing": {**figures, "reason": "loss", "gained": -0.05}})
    assert "the last step brought 5.0% less, and was taken back" in lines(core)[1]
    core.say(core.process("mail/0"), "snapshot", snapshot={"slot_sizing": None})
    assert len(lines(core)) == 1


def test_every_reason_for_slots_has_its_words() -> None:
    core = running()
    for reason in SlotReason:
        core.say(core.process("mail/0"), "snapshot", snapshot={"slot_sizing": {"reason": reason.value}})
        assert "as it says" not in lines(core)[1]


def test_a_shard_that_starts_again_is_told_the_slots_of_the_last_one() -> None:
    core = running()
    core.say(core.process("mail/0"), "snapshot", snapshot={"slot_sizing": {"slots": 24}})
    core.exit(core.process("mail/0"), 70)
    core.wait(1.0)
    assert core.sent(core.process("mail/0"), "start")[0]["slots_before"] == 24


def test_the_successor_in_a_new_generation_is_told_them_too() -> None:
    core = running()
    old = core.process("mail/0")
    core.say(old, "snapshot", snapshot={"slot_sizing": {"slots": 24}})
    core.ask("restart", pool="mail")
    new = core.process("mail/0")
    assert new.generation > old.generation
    assert core.sent(new, "start")[0]["slots_before"] == 24


def test_a_unit_that_waits_says_for_what_and_why() -> None:
    core = running()
    core.exit(core.process("mail/0"), 70)
    core.wait(0.4)
    assert lines(core) == [
        "mail/0 has no process; it starts again in 0.1 s (failures in a row: 1). Its predecessor exited with code 70, 0.4 s ago."
    ]


def test_quarantine_says_its_rule_its_cause_and_its_next_try() -> None:
    core = running(settings({"mail": pool(quarantine={"exits": 1, "window": 60.0})}))
    for _ in range(2):
        core.exit(core.process("mail/0"), 70)
        core.wait(0.5)
    assert lines(core) == [
        "mail is in quarantine (abnormal exits: more than 1 within 60 s); the last one exited with code 70. "
        "One process is tried in 30 s; `reload` tries at once.",
        "mail/0 has no process. Its predecessor exited with code 70, 0.5 s ago.",
    ]
    core.wait(30.0)
    assert lines(core)[0] == (
        "mail is in quarantine (abnormal exits: more than 1 within 60 s) and mail/0 is being tried: it must stay ready for 10 s."
    )


def test_a_pool_that_was_given_up_says_what_to_do() -> None:
    core = running()
    core.exit(core.process("mail/0"), 78)
    assert lines(core)[0] == (
        "mail is not started any more: its process exited with code 78. Trying again would not help; after mending the cause: "
        "reproq-supervisor reload"
    )


def test_a_database_that_is_not_prepared_is_told() -> None:
    core = SteppedCore(settings(embedded=True))
    assert lines(core) == ["The embedded database is not prepared yet; shards start after it.", "mail/0 has no process."]


def test_those_who_leave_are_told_with_the_time_they_have() -> None:
    core = running()
    old = core.process("mail/0")
    core.say(old, "nursery", pid=777)
    core.signal(SignalName.TERM)
    core.wait(0.5)
    assert "mail/0 (pid 102, generation 1) finishes what it runs and leaves, for at most 7.6 s more." in lines(core)
    core.wait(7.6)
    assert "mail/0 (pid 102, generation 1) is being killed: did not leave in time after being asked to." in lines(core)
    core.exit(old, None, "SIGKILL", orphans=(Orphan(777, "reproq"), Orphan(888, "task")))
    assert "mail/0 (pid 102, generation 1) is dead, but 2 of its processes are not reaped yet." in lines(core)


def test_what_people_did_by_hand_is_told() -> None:
    core = running()
    core.asked("drain", pool="mail")
    core.asked("scale", pool="mail", executors=7, for_s=600)
    assert lines(core)[1:] == [
        "mail claims nothing because it was drained by hand: reproq-supervisor resume mail",
        "mail has 7 executors by hand, for 600 s more.",
    ]
    core.asked("scale", pool="mail", executors=7)
    assert lines(core)[2] == "mail has 7 executors by hand, until the daemon ends."


def test_a_refused_reload_is_told_with_its_problems() -> None:
    core = running()
    core.ask("reload")
    core.load([{"path": "pools.mail.mode", "line": 3, "message": "expected a mode"}, {"path": None, "line": None, "message": "empty"}])
    core.wait(2.0)
    assert lines(core)[1:] == [
        "The last reload, 2.0 s ago, was refused: the configuration has problems.",
        "  /etc/reproq.yaml:3: pools.mail.mode: expected a mode",
        "  /etc/reproq.yaml: empty",
    ]


def test_a_refused_restart_is_told_of_its_own_pool_alone() -> None:
    core = running(settings({"mail": pool(), "bulk": pool()}))
    core.ask("restart", pool="bulk")
    assert lines(core, "bulk")[-1] == "A restart of bulk is under way: canary."
    assert len(lines(core, "mail")) == 1
    core.exit(core.process("bulk/0"), 78)
    assert lines(core, "bulk")[-1].startswith("The last restart of bulk, 0.0 s ago, was refused: ")
    assert len(lines(core, "mail")) == 1


def test_an_operation_under_way_is_told_when_it_has_begun_to_touch_something() -> None:
    core = running()
    core.ask("reload")
    assert len(lines(core)) == 1
    core.load(settings({"mail": pool(mode="thread")}))
    assert lines(core)[-1] == "A reload is under way: canary."


def test_endings_that_wait_for_somebodys_lock_are_told() -> None:
    core = running()
    core.say(core.process("mail/0"), "snapshot", snapshot={"locked_endings": {"count": 2, "first": [41, 57]}})
    assert lines(core)[1].startswith("mail/0 cannot write the end of 2 tasks, the first 41, 57: their rows are locked by a transaction")


def test_what_postgresql_refuses_to_write_is_told() -> None:
    core = running()
    refused = {"count": 2, "first": [41, 57], "error": '42P01: relation "audit" does not exist'}
    core.say(core.process("mail/0"), "snapshot", snapshot={"refused": refused})
    assert lines(core)[1].startswith(
        "mail/0 may not write the start or end of 2 tasks, the first 41, 57: PostgreSQL refuses it with 42P01: "
    )


def test_work_that_does_not_move_is_told() -> None:
    core = running()
    core.say(core.process("mail/0"), "snapshot", snapshot={"running": 1, "progress": 5})
    core.wait(80.0)
    assert lines(core)[-1] == "mail/0 has finished nothing for 80 s, longer than any task may take."
