"""Requests of the control socket, and what children say: what cannot be understood has no effect."""

from typing import Any

import pytest

from reproq_supervisor.core.supervision.commands import DumpState, ReopenLog, Watch
from reproq_supervisor.core.supervision.events import ChildEvent, MessageIgnored, PoolPaused, PoolResumed, PoolScaled, ProcessFailed
from reproq_supervisor.core.supervision.facts import ChildStarted, ClientId, RequestReceived, SignalName
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.releases import DeadWorkers
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import KEEPER, LOADER, POSTGRES, PREPARE, Role, Unit
from tests.sim.settings import pool, settings
from tests.support.stepped_core import SteppedCore, running

MAIL = Unit(Role.SHARD, "mail")

# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "command: expected one that the daemon knows, got None"),
        ({"command": "frobnicate"}, "got 'frobnicate'"),
        ({"command": "explain"}, "pool: expected one of mail, got None"),
        ({"command": "restart", "pool": "nosuch"}, "got 'nosuch'"),
        ({"command": "drain", "pool": 5}, "got 5"),
        ({"command": "scale", "pool": "mail", "executors": -1}, "executors: expected a number from 1 (one for each shard) to 10000"),
        ({"command": "scale", "pool": "mail", "executors": 0}, "a pool stands still by: reproq-supervisor drain mail"),
        ({"command": "scale", "pool": "mail", "executors": 10_001}, "got 10001"),
        ({"command": "scale", "pool": "mail", "executors": True}, "got True"),
        ({"command": "scale", "pool": "mail", "executors": 1.5}, "got 1.5"),
        ({"command": "scale", "pool": "mail", "executors": 1, "for_s": 0}, "for_s: expected seconds above 0, got 0"),
        ({"command": "scale", "pool": "mail", "executors": 1, "for_s": float("nan")}, "got nan"),
        ({"command": "scale", "pool": "mail", "executors": 1, "for_s": float("inf")}, "got inf"),
        ({"command": "scale", "pool": "mail", "executors": 1, "for_s": "10m"}, "got '10m'"),
    ],
)
def test_a_request_that_cannot_be_understood_is_answered_with_what_was_expected(request_: dict[str, Any], words: str) -> None:
    core = running()
    core.step(RequestReceived(ClientId(1), request_))
    answer = core.answer(ClientId(1))
    assert answer is not None
    assert (answer["ok"], answer["code"], answer["problems"]) == (False, 2, [])
    assert words in answer["error"]
    assert (core.state.overrides, core.state.paused, core.state.operation) == ({}, set(), None)


@pytest.mark.parametrize("executors", [1, 10_000])
def test_a_size_by_hand_reaches_the_shards_and_ends_by_hand(executors: int) -> None:
    core = running()
    shard = core.process("mail/0")
    assert core.asked("scale", pool="mail", executors=executors)["ok"]
    assert core.sent(shard, "adjust")[-1]["pool_settings"]["executors"] == {"min": executors, "max": executors}
    assert core.asked("status")["status"]["pools"]["mail"]["override"] == {"executors": executors, "left_s": None}
    core.asked("scale", pool="mail", executors=None)
    assert core.sent(shard, "adjust")[-1]["pool_settings"]["executors"] == {"min": 1, "max": 2}
    assert core.events(PoolScaled) == [PoolScaled("mail", executors, None), PoolScaled("mail", None, None)]
    assert len(core.sent(shard, "adjust")) == 2


def test_a_pause_is_told_once_and_a_newcomer_hears_of_it() -> None:
    core = running()
    shard = core.process("mail/0")
    for _ in range(2):
        assert core.asked("drain", pool="mail") == {"ok": True, "pool": "mail", "paused": True}
    assert core.sent(shard, "pause") == [{"type": "pause"}]
    core.exit(shard, 0)
    core.wait(1.0)
    newcomer = core.process("mail/0")
    assert core.sent(newcomer, "pause") == []
    core.make_ready("mail/0")
    assert core.sent(newcomer, "pause") == [{"type": "pause"}]
    core.asked("resume", pool="mail")
    core.asked("resume", pool="mail")
    assert core.sent(newcomer, "resume") == [{"type": "resume"}]
    assert (core.events(PoolPaused), core.events(PoolResumed)) == ([PoolPaused("mail")], [PoolResumed("mail")])


def test_only_the_shards_of_the_pool_are_paused() -> None:
    core = running(settings({"mail": pool(), "bulk": pool()}))
    core.asked("drain", pool="mail")
    assert core.sent(core.process("bulk/0"), "pause") == []


@pytest.mark.parametrize(("fields", "follow"), [({}, True), ({"follow": True}, True), ({"follow": False}, False)])
def test_events_are_watched(fields: dict[str, Any], follow: bool) -> None:
    core = running()
    client = core.ask("events", **fields)
    assert core.all(Watch) == [Watch(client, follow)]
    assert core.answer(client) is None


def test_status_tells_every_process_and_pool() -> None:
    core = running()
    core.say(core.process("mail/0"), "snapshot", snapshot={"running": 3})
    core.wait(2.0)
    status = core.asked("status")["status"]
    assert (status["state"], status["uptime_s"], status["generation"], status["dead_workers"]) == ("running", 2.0, 1, 0)
    assert [(child["child"], child["state"], child["uptime_s"]) for child in status["children"]] == [
        ("keeper", "ready", 2.0),
        ("mail/0", "ready", 2.0),
    ]
    mail = status["pools"]["mail"]
    assert (mail["shards"], mail["ready"], mail["draining"], mail["paused"], mail["override"]) == (1, 1, 0, False, None)
    assert mail["snapshots"] == {"mail/0@1": {"running": 3}}
    assert mail["account"]["circuit"] == "closed"
    assert (status["keeper"]["ready"], status["stopping"], status["last_reload"]) == (True, None, None)


def test_the_state_of_the_daemon_has_a_word() -> None:
    core = SteppedCore()
    assert core.asked("status")["status"]["state"] == "starting"
    core.make_all_ready()
    assert core.asked("status")["status"]["state"] == "running"
    core.ask("reload", dry_run=True)
    assert core.asked("status")["status"]["state"] == "running"
    core.load(settings())
    core.ask("reload")
    assert core.asked("status")["status"]["state"] == "reloading"
    core.signal(SignalName.TERM)
    assert core.asked("status")["status"]["state"] == "stopping"


def test_signals_reopen_the_log_and_dump_the_state() -> None:
    core = running()
    core.signal(SignalName.USR1)
    assert core.all(ReopenLog) == [ReopenLog()]
    core.signal(SignalName.USR2)
    assert len(core.all(DumpState)) == 1
    assert core.sent(core.process("mail/0"))[-1] == core.sent(core.process("keeper"))[-1] == {"type": "dump"}


# -- readiness --------------------------------------------------------------------------------------------------------


def ready_notes(core: SteppedCore) -> int:
    return sum(1 for note in core.notes() if note.get("READY") == "1")


def test_the_daemon_is_ready_when_every_unit_was() -> None:
    core = SteppedCore()
    core.make_ready("mail/0")
    assert ready_notes(core) == 0
    core.make_ready("keeper")
    assert ready_notes(core) == 1
    core.wait(10.0)
    assert ready_notes(core) == 1


@pytest.mark.parametrize("code", [69, 70, 78])
def test_a_pool_that_cannot_start_does_not_keep_the_daemon_from_being_ready(code: int) -> None:
    core = SteppedCore()
    core.make_ready("keeper")
    core.exit(core.process("mail/0"), code)
    assert ready_notes(core) == 1


def test_a_database_that_is_away_does_not_keep_the_daemon_from_being_ready() -> None:
    core = SteppedCore()
    core.make_ready("keeper")
    shard = core.process("mail/0")
    core.say(shard, "hello", pid=1)
    # Its first words come before its first attempt to connect: that is a start like any other.
    core.say(shard, "snapshot", snapshot={"database": {"up": False, "error": None}})
    core.step()
    assert ready_notes(core) == 0
    core.say(shard, "snapshot", snapshot={"database": {"up": False, "error": "connection refused"}})
    core.step()
    assert ready_notes(core) == 1


# -- what children say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"type": "unheard of"},
        {},
        {"type": "snapshot"},
        {"type": "snapshot", "snapshot": 5},
        {"type": "snapshot", "snapshot": {"progress": "x"}},
        {"type": "nursery"},
        {"type": "nursery", "pid": "x"},
        {"type": "failed"},
        {"type": "event", "event": 5},
        {"type": "released", "worker_ids": 5},
        {"type": "settings", "settings": {}},
        {"type": "problems", "problems": []},
    ],
)
def test_a_message_that_cannot_be_understood_is_told_and_has_no_effect(message: dict[str, Any]) -> None:
    core = running()
    shard = core.process("mail/0")
    core.say(shard, message.get("type", ""), **{key: value for key, value in message.items() if key != "type"})
    assert [event.child for event in core.events(MessageIgnored)] == ["mail/0"]
    assert (shard.state, shard.snapshot, shard.nursery_pid) == (ProcessState.READY, {}, 0)


def test_a_reason_is_kept_to_a_readable_length() -> None:
    core = SteppedCore()
    core.say(core.process("mail/0"), "failed", reason="x" * 5000)
    assert [len(event.reason) for event in core.events(ProcessFailed)] == [2000]


def test_events_of_children_are_passed_on() -> None:
    core = running()
    core.say(core.process("mail/0"), "event", event={"name": "executor.exited"})
    assert [(e.child, e.event) for e in core.events(ChildEvent)] == [("mail/0", {"name": "executor.exited"})]


def test_readiness_said_twice_counts_once() -> None:
    core = running()
    first = core.process("mail/0").ready_mono
    core.wait(5.0)
    core.say(core.process("mail/0"), "ready")
    assert core.process("mail/0").ready_mono == first


def test_the_first_message_says_what_a_child_is_for() -> None:
    core = SteppedCore(settings({"mail": pool(shards=2)}, embedded=True))
    prepare = core.process("prepare")
    assert core.sent(prepare) == [{"type": "start", "dsn": "postgresql://localhost/x", "create_database": True, "timeout_s": 270.0}]
    core.exit(prepare, 0)
    (start,) = core.sent(core.process("mail/1"))
    wanted = {"role": "shard", "child": "mail/1", "pool": "mail", "shard": 1, "shards": 2, "generation": 1, "heartbeat": 2.0}
    assert wanted.items() <= start.items()
    assert start["worker_id"] == core.process("mail/1").worker_id
    (start,) = core.sent(core.process("keeper"))
    wanted = {"role": "keeper", "child": "keeper", "pool": None, "shards": 0, "pool_settings": None, "heartbeat": 5.0}
    assert wanted.items() <= start.items()


def test_the_loader_is_told_which_file_and_which_flags() -> None:
    core = running()
    core.ask("reload")
    (start,) = core.sent(core.process("loader"))
    assert start == {"type": "start", "config_path": "/etc/app.yaml", "overrides": {}, "runtime": settings()["runtime"]}


def test_nothing_is_sent_to_a_child_before_its_hello_but_its_start() -> None:
    core = SteppedCore()
    core.asked("scale", pool="mail", executors=9)
    shard = core.process("mail/0")
    assert [message["type"] for message in core.sent(shard)] == ["start"]
    core.say(shard, "hello", pid=1)
    assert [message["type"] for message in core.sent(shard)] == ["start", "adjust"]


def test_a_start_is_entered_once() -> None:
    core = running()
    with pytest.raises(AssertionError, match="ready cannot take started"):
        core.step(ChildStarted(core.process("mail/0").serial, 1, "x"))


# -- plan -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "boot_s", "liveness_s", "grace_s"),
    [
        (MAIL, 20.0, 6.0, 2.0),
        (KEEPER, 60.0, 15.0, 10.0),
        (Unit(Role.SHARD, "gone"), 60.0, 15.0, 10.0),
        (LOADER, 30.0, None, 10.0),
        (PREPARE, 300.0, None, 10.0),
        (POSTGRES, 60.0, 12.0, 10.0),
    ],
)
def test_every_unit_has_its_deadlines(unit: Unit, boot_s: float, liveness_s: float | None, grace_s: float) -> None:
    found = Plan(settings()).deadlines(unit)
    assert (found.boot_s, found.liveness_s, found.grace_s) == (boot_s, liveness_s, grace_s)


def test_the_restart_rule_of_a_pool_is_in_its_settings() -> None:
    plan = Plan(settings({"mail": pool(shards=4, quarantine={"exits": 3, "window": 7.0})}))
    policy = plan.restart_policy(MAIL)
    assert (policy.exits, policy.window_s, policy.slots, policy.allowed_exits) == (3, 7.0, 4, 6)
    assert (plan.restart_policy(KEEPER).exits, plan.restart_policy(POSTGRES).cap_s) == (5, 10.0)


# -- dead workers -----------------------------------------------------------------------------------------------------


def test_dead_workers_are_told_in_batches_once() -> None:
    dead = DeadWorkers()
    for number in range(1001):
        dead.add(f"w{number}", 1.0)
    assert [len(batch) for batch in dead.take_untold()] == [500, 500, 1]
    assert dead.take_untold() == []
    dead.settle([f"w{number}" for number in range(1000)])
    dead.forget_telling()
    assert dead.take_untold() == [["w1000"]]


def test_the_oldest_dead_workers_are_forgotten_when_there_are_too_many() -> None:
    dead = DeadWorkers()
    for number in range(10_002):
        dead.add(f"w{number}", 1.0)
    assert len(dead) == 10_000
    batches = dead.take_untold()
    assert batches[0][0] == "w2"
    for batch in batches:
        dead.release(batch)
    dead.add("w-last", 1.0)
    dead.release(["w-last"])
    dead.forget_telling()
    assert len(dead) == 10_000
    assert dead.take_untold()[0][0] == "w3"
