"""Deaths: how an exit is judged and worded, when its unit starts again, and when its leases may be released."""

import pytest

from reproq_supervisor.core.supervision.commands import ForgetWorkers, KillOrphan, Spawn
from reproq_supervisor.core.supervision.events import (
    DeadWorkersReleased,
    GroupProbed,
    GroupQuarantined,
    GroupRefused,
    OrphanKilled,
    ProcessCrashed,
    ProcessExited,
    ProcessNotStarted,
)
from reproq_supervisor.core.supervision.facts import ChildExited, ChildSaid, Orphan, OrphanReaped, SignalName, WorkersFoundDead
from reproq_supervisor.core.supervision.health import Circuit
from reproq_supervisor.core.supervision.units import Role, Serial
from tests.sim.settings import pool, settings
from tests.support.stepped_core import SteppedCore, running

TWO_POOLS = settings({"mail": pool(), "bulk": pool()})


def last_exit(core: SteppedCore) -> ProcessExited:
    return (core.events(ProcessExited))[-1]


def circuit(core: SteppedCore, name: str = "mail/0") -> Circuit:
    unit = next(unit for unit in core.state.plan.units() if unit.name == name)
    return core.state.health(unit).circuit


# -- judged and worded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "signal", "cause", "kind"),
    [
        (0, None, "exited with code 0", "planned"),
        (70, None, "exited with code 70", "abnormal"),
        (69, None, "exited with code 69", "unavailable"),
        (75, None, "exited with code 75", "unavailable"),
        (78, None, "exited with code 78", "permanent"),
        (None, "SIGSEGV", "was killed by SIGSEGV", "abnormal"),
        (None, "SIGKILL", "was killed by SIGKILL (not by the supervisor: by hand, or for lack of memory)", "abnormal"),
    ],
)
def test_an_exit_is_told_in_words_with_its_kind(code: int | None, signal: str | None, cause: str, kind: str) -> None:
    core = running()
    core.exit(core.process("mail/0"), code, signal)
    assert (last_exit(core).cause, last_exit(core).kind) == (cause, kind)
    assert isinstance(last_exit(core), ProcessCrashed) == (kind != "planned")


def test_a_reason_that_the_process_gave_is_told_with_its_exit() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.say(process, "failed", reason="no module named app", permanent=False)
    core.exit(process, 1)
    assert last_exit(core).cause == "exited with code 1: no module named app"


def test_a_process_that_says_that_its_failure_is_permanent_is_believed_whatever_its_code() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.say(process, "failed", reason="no module named app", permanent=True)
    core.exit(process, 1)
    assert circuit(core) is Circuit.REFUSED
    assert core.events(GroupRefused) == [GroupRefused("pool mail", "exited with code 1: no module named app")]


def test_an_exit_with_code_0_before_readiness_is_a_failure() -> None:
    core = SteppedCore()
    core.exit(core.process("mail/0"), 0)
    assert last_exit(core).kind == "abnormal"


def test_the_reason_of_a_kill_is_ours() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.wait(20.3)
    core.exit(process, None, "SIGKILL")
    assert last_exit(core).cause == "was killed: was not ready within 20 s"


# -- started again ----------------------------------------------------------------------------------------------------


def test_a_crashed_process_starts_again_after_exactly_its_pause() -> None:
    core = running(settings({"mail": pool(quarantine={"exits": 100, "window": 60.0})}))
    died = []
    for jitter in (0.0, 0.0, 0.5):
        died.append(core.now)
        core.exit(core.process("mail/0"), 70, jitter=jitter)
        core.wait(2.0)
    starts = core.starts("mail/0")[1:]
    assert [start - death for start, death in zip(starts, died, strict=True)] == pytest.approx([0.5, 1.0, 1.5], abs=0.001)


def test_planned_exits_are_free() -> None:
    core = running()
    for _ in range(50):
        core.exit(core.process("mail/0"), 0)
        core.wait(1.0)
        core.make_ready("mail/0")
    assert circuit(core) is Circuit.CLOSED
    assert core.state.health(core.process("mail/0").unit).of(core.process("mail/0").unit).failures == 0


@pytest.mark.parametrize("code", [69, 75])
def test_a_process_that_misses_something_is_started_again_for_ever(code: int) -> None:
    core = running()
    for _ in range(30):
        core.exit(core.process("mail/0"), code)
        core.wait(5.1)
    assert core.names() == ["keeper", "mail/0"]
    assert circuit(core) is Circuit.CLOSED


def test_a_pool_whose_process_cannot_work_waits_for_a_reload() -> None:
    core = running()
    core.exit(core.process("mail/0"), 78)
    core.wait(1000.0)
    assert core.names() == ["keeper"]
    core.ask("reload")
    core.load(core.state.plan.settings)
    assert "mail/0" in core.names()


def test_quarantine_leaves_other_pools_alone_and_tries_one_process_at_a_time() -> None:
    core = running(TWO_POOLS)
    bulk = core.process("bulk/0")
    for _ in range(6):
        core.exit(core.process("mail/0"), 70)
        core.wait(9.0)
    assert [(e.group, e.count, e.window_s) for e in core.events(GroupQuarantined)] == [("pool mail", 6, 60.0)]
    assert core.names() == ["keeper", "bulk/0"]
    assert core.process("bulk/0") is bulk
    core.wait(30.0)
    assert core.events(GroupProbed) == [GroupProbed("pool mail", "mail/0")]
    core.exit(core.process("mail/0"), 70)
    core.wait(59.0)
    assert "mail/0" not in core.names()
    core.wait(2.0)
    assert "mail/0" in core.names()


def test_a_start_that_the_system_refuses_is_tried_again_in_short_pauses() -> None:
    core = running()
    core.refusing.add("mail/0")
    core.exit(core.process("mail/0"), 0)
    core.wait(30.0)
    assert len(core.events(ProcessNotStarted)) > 5
    assert core.events(ProcessNotStarted)[0] == ProcessNotStarted("mail/0", "no memory")
    assert circuit(core) is Circuit.CLOSED
    core.refusing.clear()
    core.wait(6.0)
    assert core.names() == ["keeper", "mail/0"]


def test_exits_of_what_is_unknown_change_nothing() -> None:
    core = running()
    assert core.step(ChildExited(Serial(99), 70)) == []
    assert core.step(ChildSaid(Serial(99), {"type": "ready"})) == []
    assert core.step(OrphanReaped(4242)) == []


def test_the_death_of_an_old_generation_is_on_nobodys_account() -> None:
    core = running()
    old = core.process("mail/0")
    core.ask("restart", pool="mail")
    core.make_ready("mail/0")
    core.wait(2.0)
    core.exit(old, None, "SIGSEGV")
    health = core.state.health(old.unit)
    assert (health.deaths, health.of(old.unit).failures) == ([], 0)


# -- a database of our own --------------------------------------------------------------------------------------------


def test_nothing_but_the_database_starts_until_it_is_prepared() -> None:
    core = SteppedCore(settings(embedded=True))
    assert core.names() == ["postgres", "prepare"]
    core.exit(core.process("prepare"), 0)
    assert core.names() == ["postgres", "keeper", "mail/0"]


@pytest.mark.parametrize("name", ["postgres", "prepare"])
def test_a_database_that_can_never_work_ends_the_daemon_at_its_start(name: str) -> None:
    core = SteppedCore(settings(embedded=True))
    core.exit(core.process(name), 78)
    for left in core.names():
        core.exit(core.process(left), None, "SIGTERM")
    assert core.exit_code == 78


def test_a_database_that_fails_later_does_not_end_the_daemon() -> None:
    core = SteppedCore(settings(embedded=True))
    core.exit(core.process("prepare"), 0)
    core.exit(core.process("postgres"), 78)
    core.wait(1.0)
    assert (core.state.stopping, core.exit_code) == (None, None)


def test_a_database_that_crashes_is_started_again_however_often() -> None:
    core = SteppedCore(settings(embedded=True))
    core.exit(core.process("prepare"), 0)
    for _ in range(30):
        core.exit(core.process("postgres"), None, "SIGKILL")
        core.wait(11.0)
    assert "postgres" in core.names()


# -- what it left behind ----------------------------------------------------------------------------------------------


def released(core: SteppedCore) -> list[str]:
    return [worker_id for message in core.sent(core.process("keeper"), "release_dead") for worker_id in message["worker_ids"]]


def test_a_shard_that_leaves_nothing_has_its_leases_released_at_once() -> None:
    core = running()
    process = core.process("mail/0")
    core.exit(process, None, "SIGKILL")
    assert released(core) == [process.worker_id]


def test_leases_are_released_when_the_nursery_is_reaped_but_the_unit_is_filled_before() -> None:
    core = running()
    process = core.process("mail/0")
    core.say(process, "nursery", pid=777)
    core.exit(process, None, "SIGKILL", orphans=(Orphan(777, "reproq"),))
    core.wait(0.6)
    assert core.names() == ["keeper", "mail/0", "mail/0"]
    assert (released(core), core.all(KillOrphan)) == ([], [])
    core.step(OrphanReaped(777))
    assert released(core) == [process.worker_id]
    assert core.names() == ["keeper", "mail/0"]


def test_what_a_nursery_leaves_is_waited_for_too() -> None:
    core = running()
    process = core.process("mail/0")
    core.say(process, "nursery", pid=777)
    core.exit(process, None, "SIGKILL", orphans=(Orphan(777, "reproq"),))
    core.step(OrphanReaped(777, (Orphan(888, "task"),)))
    assert released(core) == []
    assert core.events(OrphanKilled) == [OrphanKilled(888, "task")]
    core.step(OrphanReaped(888))
    assert released(core) == [process.worker_id]


def test_strangers_are_killed_at_once_but_not_the_nursery() -> None:
    core = running()
    process = core.process("mail/0")
    core.say(process, "nursery", pid=777)
    core.exit(process, None, "SIGKILL", orphans=(Orphan(777, "reproq"), Orphan(888, "sleep")))
    assert core.all(KillOrphan) == [KillOrphan(888)]
    assert core.events(OrphanKilled) == [OrphanKilled(888, "sleep")]


def test_dead_workers_are_told_again_to_the_next_keeper_until_one_has_answered() -> None:
    core = running()
    process = core.process("mail/0")
    core.exit(process, None, "SIGKILL")
    core.exit(core.process("keeper"), None, "SIGKILL")
    core.wait(1.0)
    assert released(core) == []
    core.make_ready("keeper")
    assert released(core) == [process.worker_id]
    core.say(core.process("keeper"), "released", worker_ids=[process.worker_id], count=3)
    assert core.events(DeadWorkersReleased) == [DeadWorkersReleased(1, 3)]
    assert len(core.state.dead_workers) == 0
    core.exit(core.process("keeper"), None, "SIGKILL")
    core.wait(2.0)
    core.make_ready("keeper")
    assert released(core) == [process.worker_id], "it had not looked for a claim that was still committing"
    core.say(core.process("keeper"), "released", worker_ids=[process.worker_id], count=0)
    core.say(core.process("keeper"), "settled", worker_ids=[process.worker_id])
    core.exit(core.process("keeper"), None, "SIGKILL")
    core.wait(2.0)
    core.make_ready("keeper")
    assert released(core) == []


def test_a_keeper_has_no_leases() -> None:
    core = running()
    core.exit(core.process("keeper"), None, "SIGKILL")
    assert len(core.state.dead_workers) == 0


def test_every_process_has_its_own_serial() -> None:
    core = running()
    for _ in range(3):
        core.exit(core.process("mail/0"), 0)
        core.wait(1.0)
    serials = [command.serial for command in core.all(Spawn)]
    assert len(set(serials)) == len(serials)
    assert {command.unit.role for command in core.all(Spawn)} == {Role.KEEPER, Role.SHARD}


def test_a_database_is_started_again_only_when_nothing_is_left_of_the_last_one() -> None:
    core = SteppedCore(settings(embedded=True))
    core.make_all_ready()
    old = core.process("postgres")
    core.silent.add(old.serial)
    core.wait(20.0)
    assert core.signals(old) == [SignalName.QUIT, SignalName.KILL]
    assert len(core.starts("postgres")) == 1
    core.exit(old, None, "SIGKILL", orphans=(Orphan(4711, "postgres"),))
    core.wait(5.0)
    assert len(core.starts("postgres")) == 1
    core.step(OrphanReaped(4711))
    core.wait(1.0)
    assert len(core.starts("postgres")) == 2


def test_workers_that_an_earlier_daemon_left_are_released_once_and_forgotten() -> None:
    core = SteppedCore()
    core.step(WorkersFoundDead(("host-1-aa", "host-2-bb")))
    core.make_all_ready()
    core.step(WorkersFoundDead(("host-1-aa",)))
    keeper = core.process("keeper")
    assert core.sent(keeper, "release_dead") == [{"type": "release_dead", "worker_ids": ["host-1-aa", "host-2-bb"]}]
    assert core.all(ForgetWorkers) == []
    core.say(keeper, "released", worker_ids=["host-1-aa", "host-2-bb"], count=3)
    assert core.all(ForgetWorkers) == [ForgetWorkers(("host-1-aa", "host-2-bb"))]
    assert len(core.state.dead_workers) == 0
