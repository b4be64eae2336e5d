"""The end of the daemon: shards, keeper, database, itself; within its time, whoever hangs."""

import pytest

from reproq_supervisor.core.policy.shutdown import QUICK_S
from reproq_supervisor.core.supervision.events import StopPhaseEntered, SupervisorStopping
from reproq_supervisor.core.supervision.facts import Orphan, OrphanReaped, SignalName
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import Role
from tests.sim.settings import pool, settings
from tests.support.stepped_core import SteppedCore, running

LEAVING = (ProcessState.DRAINING, ProcessState.STOPPING)


def embedded() -> SteppedCore:
    """Return a core with a database of its own, every process ready."""
    core = SteppedCore(settings(embedded=True))
    core.exit(core.process("prepare"), 0)
    core.make_all_ready()
    return core


def leaving(core: SteppedCore) -> list[str]:
    return [process.unit.name for process in core.state.roster if process.state in LEAVING]


def end(core: SteppedCore, name: str) -> None:
    """Let a process leave as it was asked to, and the keeper release what it may have held."""
    process = core.process(name)
    core.exit(process, 0)
    if process.unit.role is Role.SHARD:
        core.say(core.process("keeper"), "released", worker_ids=[process.worker_id], count=0)


def test_shards_end_first_then_the_keeper_then_the_database_then_the_supervisor() -> None:
    core = embedded()
    core.signal(SignalName.TERM)
    for name in ("mail/0", "keeper", "postgres"):
        assert leaving(core) == [name]
        core.wait(0.5)
        assert core.exit_code is None
        end(core, name)
    assert core.exit_code == 0
    assert [event.phase for event in core.events(StopPhaseEntered)] == ["keeper", "database", "over"]


@pytest.mark.parametrize("signal", [SignalName.TERM, SignalName.INT])
def test_the_first_signal_lets_tasks_finish(signal: SignalName) -> None:
    core = running()
    process = core.process("mail/0")
    core.signal(signal)
    assert core.sent(process)[-1] == {"type": "drain", "timeout": 3.0, "grace": 2.0, "within": 8.077}
    assert core.events(SupervisorStopping) == [SupervisorStopping(f"received {signal.value}", quick=False)]
    assert {"STOPPING": "1", "STATUS": f"stopping: received {signal.value}"} in core.notes()


def test_a_second_int_is_quick_but_a_second_term_is_not() -> None:
    core = running()
    process = core.process("mail/0")
    core.signal(SignalName.TERM)
    core.signal(SignalName.TERM)
    assert core.sent(process, "quit") == []
    core.signal(SignalName.INT)
    assert len(core.sent(process, "quit")) == 1
    assert process.kill_at is not None
    assert process.kill_at < core.now + QUICK_S
    core.signal(SignalName.INT)
    assert len(core.sent(process, "quit")) == 1


def test_quit_is_quick_at_once() -> None:
    core = running()
    process = core.process("mail/0")
    core.signal(SignalName.QUIT)
    assert core.sent(process)[-1] == {"type": "quit", "grace": 1.0, "within": 4.038}
    assert core.state.stopping is not None
    assert core.state.stopping.quick


@pytest.mark.parametrize(("quick", "message"), [(False, "drain"), (True, "quit")])
def test_stop_on_the_control_socket_is_answered_at_once(quick: bool, message: str) -> None:
    core = running()
    assert core.asked("stop", quick=quick) == {"ok": True}
    assert core.sent(core.process("mail/0"))[-1]["type"] == message


def test_a_shard_that_has_not_said_hello_is_ended_by_a_signal() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.signal(SignalName.TERM)
    assert core.signals(process) == [SignalName.TERM]
    assert core.sent(process, "quit") == []


def test_a_shard_that_still_boots_has_nothing_to_finish() -> None:
    core = SteppedCore()
    process = core.process("mail/0")
    core.say(process, "hello", pid=1)
    core.signal(SignalName.TERM)
    assert core.sent(process)[-1] == {"type": "quit", "grace": 1.0, "within": 3.0}


def test_the_keeper_leaves_in_a_second_and_is_killed_after_three() -> None:
    core = running()
    keeper = core.process("keeper")
    core.signal(SignalName.TERM)
    end(core, "mail/0")
    assert core.sent(keeper)[-1] == {"type": "drain", "timeout": 1.0, "grace": 0.0, "within": 3.0}
    core.wait(2.9)
    assert keeper.state is ProcessState.DRAINING
    core.wait(0.1)
    assert keeper.state is ProcessState.STOPPING


def test_nobody_is_waited_for_who_outlives_a_kill() -> None:
    core = running()
    process = core.process("mail/0")
    core.signal(SignalName.TERM)
    core.wait(8.3)
    assert core.signals(process) == [SignalName.KILL]
    assert leaving(core) == ["mail/0"]
    core.wait(0.2)
    assert leaving(core) == ["keeper", "mail/0"]
    core.exit(core.process("keeper"), 0)
    assert core.exit_code is None, "it may be reaped in the time that is left"
    core.wait(1.5)
    assert core.exit_code == 0


def test_nobody_is_waited_for_long_who_outlives_a_kill_though_there_is_time_left() -> None:
    core = running(settings(shutdown_timeout=600.0))
    process = core.process("mail/0")
    core.signal(SignalName.TERM)
    core.silent.add(process.serial)
    core.wait(6.4)
    assert core.signals(process) == [SignalName.KILL]
    core.wait(4.7)
    assert leaving(core) == ["mail/0"]
    core.wait(1.3)
    assert leaving(core) == ["keeper", "mail/0"]


FROZEN_ORDERS = [("mail/0",), ("keeper",), ("postgres",), ("mail/0", "keeper"), ("keeper", "postgres"), ("mail/0", "keeper", "postgres")]


@pytest.mark.parametrize("shutdown_timeout", [0.0, 1.0, 3.0, 10.0, 60.0])
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("frozen", FROZEN_ORDERS, ids="+".join)
def test_the_end_comes_within_its_time_whoever_is_frozen(frozen: tuple[str, ...], quick: bool, shutdown_timeout: float) -> None:
    core = SteppedCore(settings(embedded=True, shutdown_timeout=shutdown_timeout))
    core.exit(core.process("prepare"), 0)
    core.make_all_ready()
    hung = {name: core.process(name) for name in frozen}
    core.silent |= {process.serial for process in hung.values()}
    asked_at = core.now
    core.asked("stop", quick=quick)
    while core.exit_code is None and core.now < asked_at + 120.0:
        for process in core.state.roster:
            if process.unit.name in hung and process.state is not ProcessState.LINGERING:
                if SignalName.KILL in core.signals(process):
                    core.exit(process, None, "SIGKILL")
            elif process.state is ProcessState.DRAINING:
                end(core, process.unit.name)
        core.wait(0.005)
    assert core.exit_code == 0
    assert core.now - asked_at <= max(shutdown_timeout, 1.0)


@pytest.mark.parametrize("shutdown_timeout", [1.0, 10.0])
def test_the_end_comes_within_its_time_even_if_nothing_dies_when_killed(shutdown_timeout: float) -> None:
    core = SteppedCore(settings(embedded=True, shutdown_timeout=shutdown_timeout))
    core.exit(core.process("prepare"), 0)
    core.make_all_ready()
    everybody = [core.process(name) for name in ("mail/0", "keeper", "postgres")]
    core.silent |= {process.serial for process in everybody}
    asked_at = core.now
    core.signal(SignalName.TERM)
    while core.exit_code is None:
        core.wait(0.005)
        assert core.now - asked_at <= shutdown_timeout
    for process in everybody:
        assert core.signals(process)[-1] is SignalName.KILL


def died_while_draining() -> tuple[SteppedCore, Process]:
    """Return a core that stops and whose only shard has crashed meanwhile."""
    core = running()
    process = core.process("mail/0")
    core.signal(SignalName.TERM)
    core.exit(process, None, "SIGSEGV")
    return core, process


def test_the_keeper_is_kept_until_it_has_released_the_leases_of_the_dead() -> None:
    core, process = died_while_draining()
    assert leaving(core) == []
    core.say(core.process("keeper"), "released", worker_ids=[process.worker_id], count=2)
    assert leaving(core) == ["keeper"]


def test_leases_are_waited_for_two_seconds_only() -> None:
    core, _ = died_while_draining()
    core.wait(1.8)
    assert leaving(core) == []
    core.wait(1.0)
    assert leaving(core) == ["keeper"]


def test_a_quick_end_does_not_wait_for_leases() -> None:
    core, _ = died_while_draining()
    core.signal(SignalName.QUIT)
    assert leaving(core) == ["keeper"]


def test_a_shard_is_not_gone_while_its_nursery_lives() -> None:
    core = running()
    process = core.process("mail/0")
    core.say(process, "nursery", pid=777)
    core.signal(SignalName.QUIT)
    core.exit(process, 0, orphans=(Orphan(777, "reproq"),))
    assert leaving(core) == []
    core.step(OrphanReaped(777))
    assert leaving(core) == ["keeper"]


def test_a_keeper_that_dies_is_started_again_while_shards_drain_but_no_shard_is() -> None:
    core = running(settings({"mail": pool(shards=2)}))
    core.signal(SignalName.TERM)
    core.exit(core.process("mail/0"), None, "SIGKILL")
    core.exit(core.process("keeper"), None, "SIGKILL")
    core.wait(1.0)
    assert core.names() == ["mail/1", "keeper"]


def test_a_database_that_dies_is_started_again_while_its_users_leave() -> None:
    core = embedded()
    core.signal(SignalName.TERM)
    core.exit(core.process("postgres"), None, "SIGKILL")
    core.wait(1.0)
    assert "postgres" in core.names()


def test_requests_during_the_end_are_refused_but_status_and_explain_answer() -> None:
    core = running()
    core.signal(SignalName.TERM)
    for command in ("reload", "restart", "scale", "drain", "resume"):
        answer = core.asked(command, pool="mail", executors=1)
        assert (answer["ok"], answer["code"], answer["error"]) == (False, 75, "the daemon is stopping")
    assert core.asked("status")["status"]["stopping"] == {"why": "received TERM", "phase": "shards", "quick": False, "left_s": 10.0}
    assert core.asked("explain", pool="mail")["lines"][0] == "The daemon is stopping: received TERM."
    assert core.asked("stop") == {"ok": True}


def test_a_reload_under_way_and_those_that_wait_are_answered_at_the_end() -> None:
    core = running()
    clients = [core.ask("reload"), core.ask("reload"), core.ask("restart", pool="mail")]
    core.signal(SignalName.TERM)
    for client in clients:
        answer = core.answer(client)
        assert answer is not None
        assert (answer["ok"], answer["code"], answer["error"]) == (False, 75, "the daemon is stopping")
    assert core.signals(core.process("loader")) == [SignalName.TERM]


def test_a_hangup_during_the_end_is_no_reload() -> None:
    core = running()
    core.signal(SignalName.TERM)
    core.signal(SignalName.HUP)
    core.wait(1.0)
    assert "loader" not in core.names()


def test_the_service_manager_is_asked_for_patience_every_two_seconds() -> None:
    core = running()
    core.wait(60.0)
    before = len(core.notes())
    core.signal(SignalName.TERM)
    core.wait(6.5)
    asked = [note for note in core.notes()[before:] if "EXTEND_TIMEOUT_USEC" in note]
    assert len(asked) in (3, 4)
    assert asked[0] == {"EXTEND_TIMEOUT_USEC": "10000000", "STATUS": "stopping: 2 processes left"}


def test_nothing_is_done_after_the_end() -> None:
    core = running()
    core.signal(SignalName.TERM)
    end(core, "mail/0")
    end(core, "keeper")
    assert core.exit_code == 0
    assert core.step() == []


def test_shards_that_drain_for_another_reason_are_told_to_hurry() -> None:
    core = running(settings({"mail": pool(timeout=3600.0)}))
    old = core.process("mail/0")
    core.ask("restart", pool="mail")
    core.make_ready("mail/0")
    core.wait(2.0)
    assert core.sent(old)[-1] == {"type": "drain", "timeout": 3600.0, "grace": 2.0, "within": 3606.0}
    core.signal(SignalName.TERM)
    assert core.sent(old)[-1] == {"type": "drain", "timeout": 3.0, "grace": 2.0, "within": 8.077}
    assert old.kill_at == pytest.approx(core.now + 8.077, abs=0.001)
