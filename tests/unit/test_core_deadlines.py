"""Boot, liveness and kill steps, each just before its moment and at it."""

from typing import Any

import pytest

from reproq_supervisor.core.supervision.commands import AskStacks, KillOrphan
from reproq_supervisor.core.supervision.events import (
    GroupRecovered,
    HungSpared,
    PoolScaled,
    ProcessCondemned,
    ProcessStalled,
    SupervisorOverslept,
)
from reproq_supervisor.core.supervision.facts import Orphan, OrphanReaped, OrphansFound, SignalName
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.states import ProcessState
from tests.sim.settings import pool, settings
from tests.support.stepped_core import SteppedCore, running

NO_DATABASE = {"database": {"up": False, "since_s": 1.0, "error": "refused"}}
KILL = [SignalName.KILL]


def freeze(core: SteppedCore, *names: str) -> list[Process]:
    """Let these processes say nothing any more."""
    processes = [core.process(name) for name in names]
    core.silent |= {process.serial for process in processes}
    return processes


def asked_for_stacks(core: SteppedCore, process: Process) -> bool:
    return any(command.serial == process.serial for command in core.all(AskStacks))


# -- boot -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "boot_s"), [("mail/0", 20.0), ("keeper", 60.0)])
def test_a_process_that_is_not_ready_in_time_writes_its_stacks_and_is_killed(name: str, boot_s: float) -> None:
    core = SteppedCore()
    process = core.process(name)
    core.wait(boot_s - 0.1)
    assert process.state is ProcessState.BOOTING
    core.wait(0.1)
    assert process.state is ProcessState.STOPPING
    assert core.events(ProcessCondemned)[-1].why == f"was not ready within {boot_s:g} s"
    assert asked_for_stacks(core, process)
    core.wait(0.2)
    assert core.signals(process) == []
    core.wait(0.1)
    assert core.signals(process) == KILL
    core.exit(process, None, "SIGKILL")
    assert core.state.health(process.unit).of(process.unit).failures == 1


def test_the_time_to_boot_begins_again_with_the_first_word() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.wait(19.0)
    core.say(process, "hello", pid=1)
    core.wait(19.9)
    assert process.state is ProcessState.BOOTING
    core.wait(0.1)
    assert process.state is ProcessState.STOPPING


def test_one_that_hung_is_on_the_account_from_the_decision_to_kill_it_and_only_once() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.wait(20.0)
    assert process.state is ProcessState.STOPPING
    assert core.names().count("mail/0") == 1, "its successor is not started at once"
    core.exit(process, None, "SIGKILL")
    assert core.state.health(process.unit).of(process.unit).failures == 1
    assert "mail/0" not in core.names()
    core.wait(0.6)
    assert "mail/0" in core.names()


def test_beats_do_not_make_a_boot_longer() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.say(process, "hello", pid=1)
    core.wait(20.0)
    assert process.state is ProcessState.STOPPING


def test_a_boot_that_waits_for_the_database_is_not_killed() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.say(process, "hello", pid=1)
    for _ in range(300):
        core.say(process, "snapshot", snapshot=NO_DATABASE)
        core.wait(1.0)
    assert process.state is ProcessState.BOOTING
    core.say(process, "snapshot", snapshot={"database": {"up": True}})
    core.wait(19.0)
    assert process.state is ProcessState.BOOTING
    core.wait(1.0)
    assert process.state is ProcessState.STOPPING


def test_a_boot_that_waits_for_the_database_and_falls_silent_is_killed() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.say(process, "hello", pid=1)
    core.say(process, "snapshot", snapshot=NO_DATABASE)
    freeze(core, "mail/0")
    core.wait(20.0)
    assert process.state is ProcessState.BOOTING
    core.wait(5.0)
    assert process.state is ProcessState.STOPPING


def test_a_canary_that_waits_for_the_database_is_killed_because_somebody_waits_for_the_answer() -> None:
    core = running()
    client = core.ask("restart", pool="mail")
    canary = core.process("mail/0")
    core.say(canary, "hello", pid=1)
    for _ in range(20):
        core.say(canary, "snapshot", snapshot=NO_DATABASE)
        core.wait(1.0)
    assert canary.state is ProcessState.STOPPING
    core.exit(canary, None, "SIGKILL")
    answer = core.answer(client)
    assert answer is not None
    assert not answer["ok"]


@pytest.mark.parametrize("database", [None, {}, "down", {"up": None}])
def test_a_snapshot_that_does_not_say_that_the_database_is_down_buys_no_time(database: object) -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.say(process, "hello", pid=1)
    core.say(process, "snapshot", snapshot={"database": database})
    core.wait(20.0)
    assert process.state is ProcessState.STOPPING


# -- liveness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "limit_s"), [("mail/0", 6.0), ("keeper", 15.0)])
def test_a_process_that_gives_no_sign_of_life_is_killed(name: str, limit_s: float) -> None:
    core = running()
    (process,) = freeze(core, name)
    core.wait(limit_s - 0.1)
    assert process.state is ProcessState.READY
    core.wait(0.1)
    assert process.state is ProcessState.STOPPING
    assert core.events(ProcessCondemned)[-1].why == f"gave no sign of life for {limit_s:g} s"
    core.wait(0.3)
    assert core.signals(process) == KILL


def test_any_word_is_a_sign_of_life() -> None:
    core = running()
    (process,) = freeze(core, "mail/0")
    said: list[tuple[str, dict[str, Any]]] = [("beat", {}), ("snapshot", {"snapshot": {}}), ("event", {"event": {}}), ("unheard of", {})]
    for kind, fields in said:
        core.wait(5.9)
        core.say(process, kind, **fields)
    core.wait(5.9)
    assert process.state is ProcessState.READY


def test_a_shard_is_found_hung_before_a_third_of_its_lease_is_over() -> None:
    core = running(settings({"mail": pool(lease=9.0)}))
    (process,) = freeze(core, "mail/0")
    core.wait(2.6)
    assert process.state is ProcessState.READY
    core.wait(0.1)
    assert process.state is ProcessState.STOPPING


def test_a_draining_process_must_give_signs_of_life_too() -> None:
    core = running()
    old = core.process("mail/0")
    core.ask("restart", pool="mail")
    core.make_ready("mail/0")
    core.wait(2.0)
    assert old.state is ProcessState.DRAINING
    core.silent.add(old.serial)
    core.wait(6.0)
    assert (old.state, old.hung) == (ProcessState.STOPPING, True)


def four_shards() -> SteppedCore:
    return running(settings({"mail": pool(shards=4)}))


def test_when_many_fall_silent_at_once_the_host_is_suspected_for_one_window() -> None:
    core = four_shards()
    silent = freeze(core, "mail/0", "mail/1", "mail/2")
    core.wait(6.0)
    assert core.events(HungSpared) == [HungSpared(3, 5)]
    assert {process.state for process in silent} == {ProcessState.READY}
    core.wait(5.9)
    assert {process.state for process in silent} == {ProcessState.READY}
    core.wait(0.1)
    assert {process.state for process in silent} == {ProcessState.STOPPING}
    assert len(core.events(HungSpared)) == 1


def test_the_silent_are_spared_for_the_longest_of_their_deadlines() -> None:
    core = running(settings({"mail": pool(shards=2)}))
    silent = freeze(core, "keeper")
    core.wait(9.0)
    silent += freeze(core, "mail/0", "mail/1")
    core.wait(6.0)
    assert core.events(HungSpared) == [HungSpared(3, 3)]
    core.wait(14.9)
    assert {process.state for process in silent} == {ProcessState.READY}
    core.wait(0.2)
    assert {process.state for process in silent} == {ProcessState.STOPPING}


def test_the_loop_does_not_spin_while_it_spares_the_silent() -> None:
    core = four_shards()
    freeze(core, "mail/0", "mail/1", "mail/2")
    core.wait(6.5)
    core.step()
    assert core.core.wake_at == core.now + 1.0


def test_who_speaks_again_within_the_window_is_forgiven_and_all_are_spared_again_another_time() -> None:
    core = four_shards()
    freeze(core, "mail/0", "mail/1", "mail/2")
    core.wait(6.5)
    core.silent.clear()
    core.wait(60.0)
    freeze(core, "mail/0", "mail/1", "mail/2")
    core.wait(6.0)
    assert len(core.events(HungSpared)) == 2
    assert core.events(ProcessCondemned) == []


# -- our own sleep ----------------------------------------------------------------------------------------------------


def test_nobody_is_killed_for_what_we_slept_through() -> None:
    core = running()
    starting = core.process("mail/0")
    core.now = core.core.wake_at + 3600.0
    core.step()
    assert core.events(SupervisorOverslept) == [SupervisorOverslept(3600.0)]
    assert starting.state is ProcessState.READY
    core.wait(5.0)
    assert core.events(ProcessCondemned) == []


def test_a_boot_has_its_whole_time_again_after_our_sleep() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.now = core.core.wake_at + 100.0
    core.step()
    core.wait(19.9)
    assert process.state is ProcessState.BOOTING
    core.wait(0.1)
    assert process.state is ProcessState.STOPPING


def test_a_drain_and_the_end_have_the_time_that_we_slept() -> None:
    core = running()
    process = core.process("mail/0")
    core.signal(SignalName.TERM)
    kill_at, stopping = process.kill_at, core.state.stopping
    assert kill_at is not None
    assert stopping is not None
    deadline = stopping.deadline
    core.now = core.core.wake_at + 50.0
    core.step()
    assert (process.kill_at, stopping.deadline) == (kill_at + 50.0, deadline + 50.0)


def test_a_kill_that_was_decided_comes_at_once_after_our_sleep() -> None:
    core = running()
    (process,) = freeze(core, "mail/0")
    core.wait(6.0)
    assert core.signals(process) == []
    core.now = core.core.wake_at + 50.0
    core.step()
    assert core.signals(process) == KILL


def test_being_a_second_late_is_no_sleep() -> None:
    core = running()
    core.now = core.core.wake_at + 1.0
    core.step()
    assert core.events(SupervisorOverslept) == []


# -- health and progress ----------------------------------------------------------------------------------------------


def test_failures_are_forgotten_after_a_minute_of_health() -> None:
    core = running()
    core.exit(core.process("mail/0"), 70)
    core.wait(0.5)
    core.make_ready("mail/0")
    unit = core.process("mail/0").unit
    core.wait(59.0)
    assert core.state.health(unit).of(unit).failures == 1
    core.wait(2.0)
    assert core.state.health(unit).of(unit).failures == 0


def test_the_health_of_an_old_generation_forgives_the_new_one_nothing() -> None:
    core = running(settings({"mail": pool(shards=2)}))
    old = core.process("mail/1")
    core.wait(100.0)
    core.ask("restart", pool="mail")
    core.make_ready("mail/0")
    core.wait(1.1)
    core.exit(core.process("mail/1"), 70)
    core.step()
    assert (old.state, old.generation) == (ProcessState.READY, 1)
    assert core.state.health(old.unit).of(old.unit).failures == 1


def test_a_probe_that_stays_ready_ends_the_quarantine() -> None:
    core = running(settings({"mail": pool(shards=2, quarantine={"exits": 1, "window": 60.0})}))
    for _ in range(2):
        core.exit(core.process("mail/0"), 70)
        core.wait(0.5)
    assert core.names() == ["keeper", "mail/1"]
    core.wait(30.0)
    core.make_ready("mail/0")
    core.wait(9.9)
    assert core.events(GroupRecovered) == []
    core.wait(0.2)
    assert core.events(GroupRecovered) == [GroupRecovered("pool mail")]


def test_work_without_progress_is_told_once_when_no_task_may_take_that_long() -> None:
    core = running()
    process = core.process("mail/0")
    core.say(process, "snapshot", snapshot={"running": 2, "progress": 1})
    core.wait(72.0)
    assert core.events(ProcessStalled) == []
    core.wait(5.0)
    assert [(e.child, e.running) for e in core.events(ProcessStalled)] == [("mail/0", 2)]
    core.say(process, "snapshot", snapshot={"running": 2, "progress": 2})
    assert not process.stalled
    core.wait(80.0)
    assert len(core.events(ProcessStalled)) == 2


def test_a_pool_without_work_is_not_stalled() -> None:
    core = running()
    core.say(core.process("mail/0"), "snapshot", snapshot={"running": 0, "progress": 1})
    core.wait(200.0)
    assert core.events(ProcessStalled) == []


# -- kill steps -------------------------------------------------------------------------------------------------------


def test_who_does_not_leave_in_time_is_killed_without_blame() -> None:
    core = running()
    process = core.process("mail/0")
    core.signal(SignalName.TERM)
    core.wait(8.0)
    assert process.state is ProcessState.DRAINING
    core.wait(0.1)
    assert (process.state, process.hung) == (ProcessState.STOPPING, False)
    core.wait(0.2)
    assert core.signals(process) == KILL
    core.wait(10.0)
    assert core.signals(process) == KILL, "once is enough"


def test_a_database_that_does_not_close_is_first_told_to_close_at_once_and_then_killed() -> None:
    core = SteppedCore(settings(embedded=True, shutdown_timeout=60.0))
    postgres = core.process("postgres")
    core.exit(core.process("prepare"), 0)
    core.make_all_ready()
    core.signal(SignalName.TERM)
    for name in ("mail/0", "keeper"):
        core.exit(core.process(name), 0)
    assert core.signals(postgres) == [SignalName.INT]
    core.wait(9.9)
    assert core.signals(postgres) == [SignalName.INT]
    core.wait(0.1)
    assert core.signals(postgres) == [SignalName.INT, SignalName.QUIT]
    assert not asked_for_stacks(core, postgres)
    core.wait(1.9)
    assert core.signals(postgres)[2:] == []
    core.wait(0.1)
    assert core.signals(postgres)[2:] == KILL


def test_a_nursery_that_outlives_its_shard_is_killed_after_three_seconds_and_again_every_second() -> None:
    core = running()
    process = core.process("mail/0")
    core.say(process, "nursery", pid=777)
    core.exit(process, None, "SIGKILL", orphans=(Orphan(777, "reproq"),))
    core.wait(2.9)
    assert core.all(KillOrphan) == []
    core.wait(0.1)
    assert core.all(KillOrphan) == [KillOrphan(777)]
    core.wait(1.0)
    assert core.all(KillOrphan) == [KillOrphan(777)] * 2
    core.step(OrphanReaped(777))
    core.wait(5.0)
    assert core.all(KillOrphan) == [KillOrphan(777)] * 2


def test_a_stranger_is_killed_at_once_and_whoever_lingers_waits_for_it() -> None:
    core = running()
    process = core.process("mail/0")
    core.say(process, "nursery", pid=777)
    core.exit(process, None, "SIGKILL", orphans=(Orphan(777, "reproq"),))
    core.step(OrphansFound((Orphan(888, "sleep"),)))
    assert core.all(KillOrphan) == [KillOrphan(888)]
    core.step(OrphanReaped(777))
    assert process.state is ProcessState.LINGERING
    core.step(OrphanReaped(888))
    assert process.state is ProcessState.GONE


# -- overrides and the next look --------------------------------------------------------------------------------------


def test_a_size_given_for_a_while_ends_with_its_time() -> None:
    core = running()
    process = core.process("mail/0")
    core.ask("scale", pool="mail", executors=7, for_s=30)
    assert core.sent(process, "adjust")[-1]["pool_settings"]["executors"] == {"min": 7, "max": 7}
    core.wait(29.9)
    assert core.events(PoolScaled) == [PoolScaled("mail", 7, 30)]
    core.wait(1.1)
    assert core.events(PoolScaled)[1:] == [PoolScaled("mail", None, None)]
    assert core.sent(process, "adjust")[-1]["pool_settings"]["executors"] == {"min": 1, "max": 2}


def test_the_next_look_is_a_second_away_or_at_the_next_deadline() -> None:
    core = running()
    core.wait(5.0)
    core.step()
    assert core.core.wake_at == core.now + 1.0
    core.exit(core.process("mail/0"), 70)
    assert core.core.wake_at == core.now + 0.5
