"""Reload and restart: one at a time, all or nothing, and everybody who asked is answered once."""

from typing import Any

import pytest

from reproq_supervisor.core.supervision.commands import Spawn
from reproq_supervisor.core.supervision.events import ReloadCommitted, ReloadRefused, ReloadStarted
from reproq_supervisor.core.supervision.facts import ClientId, ClientLeft, SignalName
from reproq_supervisor.core.supervision.states import ProcessState
from reproq_supervisor.core.supervision.units import Role
from tests.sim.settings import pool, settings
from tests.support.stepped_core import CONFIG_PATH, SteppedCore, running

PROBLEM = {"path": "pools.mail", "line": 3, "column": 1, "message": "expected a mapping", "hint": "indent it"}
LIVE = settings({"mail": pool(executors={"min": 1, "max": 8})})
ROLLING = settings({"mail": pool(mode="thread")})


def loaders(core: SteppedCore) -> int:
    return sum(1 for command in core.all(Spawn) if command.unit.role is Role.LOADER)


def answer(core: SteppedCore, client: ClientId) -> dict[str, Any]:
    found = core.answer(client)
    assert found is not None, "nobody answered"
    return found


def test_a_file_that_did_not_change_changes_nothing() -> None:
    core = running()
    client = core.ask("reload")
    core.load(settings())
    assert answer(core, client) == {"ok": True, "changed": False, "plan": [], "generation": 1}
    assert core.names() == ["keeper", "mail/0"]


def test_a_live_change_is_told_to_those_who_run() -> None:
    core = running()
    process = core.process("mail/0")
    client = core.ask("reload")
    core.load(LIVE)
    assert answer(core, client) == {
        "ok": True,
        "changed": True,
        "plan": [{"key": "pools.mail.executors.max", "class": "live", "old": 2, "new": 8}],
        "generation": 1,
    }
    assert core.sent(process, "adjust")[-1]["pool_settings"]["executors"] == {"min": 1, "max": 8}
    assert core.names() == ["keeper", "mail/0"]


def test_a_rolling_change_drains_the_old_only_when_the_new_has_proved_itself() -> None:
    core = running()
    old = core.process("mail/0")
    client = core.ask("reload")
    core.load(ROLLING)
    new = core.process("mail/0")
    assert (new.generation, old.state, core.answer(client)) == (2, ProcessState.READY, None)
    core.make_ready("mail/0")
    core.wait(0.9)
    assert (old.state, core.answer(client)) == (ProcessState.READY, None)
    core.wait(1.2)
    assert old.state is ProcessState.DRAINING
    assert answer(core, client)["changed"]
    assert core.events(ReloadCommitted) == [ReloadCommitted(2, 1)]


def test_a_canary_that_dies_refuses_the_reload_and_touches_nothing() -> None:
    core = running()
    old = core.process("mail/0")
    client = core.ask("reload")
    core.load(ROLLING)
    core.exit(core.process("mail/0"), 78)
    refused = answer(core, client)
    assert (refused["ok"], refused["code"]) == (False, 1)
    assert refused["error"] == "mail/0 of the new generation exited with code 78; the old generation stays"
    assert core.names() == ["keeper", "mail/0"]
    assert core.process("mail/0") is old
    assert core.state.plan.settings == settings()
    assert core.state.health(old.unit).start_at(old.unit, core.now) is not None, "a canary has no account"


def test_a_canary_that_dies_after_it_became_ready_refuses_the_reload_too() -> None:
    core = running()
    client = core.ask("reload")
    core.load(ROLLING)
    core.make_ready("mail/0")
    core.wait(0.5)
    core.exit(core.process("mail/0"), None, "SIGSEGV")
    assert not answer(core, client)["ok"]
    core.wait(5.0)
    assert core.names() == ["keeper", "mail/0"]


def test_all_canaries_must_prove_themselves() -> None:
    core = running(settings({"mail": pool(), "bulk": pool()}))
    client = core.ask("reload")
    core.load(settings({"mail": pool(mode="thread"), "bulk": pool(mode="thread")}))
    core.make_ready("mail/0")
    core.wait(5.0)
    assert core.answer(client) is None
    core.exit(core.process("bulk/0"), 70)
    core.step()
    assert not answer(core, client)["ok"]
    leaving = [p.unit.name for p in core.state.roster if p.state is ProcessState.DRAINING and p.generation == 2]
    assert leaving == ["mail/0"]


def test_one_canary_is_tried_for_each_pool_and_the_other_shards_follow() -> None:
    core = running(settings({"mail": pool(shards=3)}))
    core.ask("reload")
    core.load(settings({"mail": pool(shards=3, mode="thread")}))
    assert [p.unit.name for p in core.state.roster if p.generation == 2] == ["mail/0"]
    core.make_ready("mail/0")
    core.wait(2.0)
    assert sorted(p.unit.name for p in core.state.roster if p.generation == 2) == ["mail/0", "mail/1", "mail/2"]
    draining = [p.unit.name for p in core.state.roster if p.state is ProcessState.DRAINING]
    assert draining == ["mail/0"], "the others stay until their successors are ready"


def test_a_death_while_the_rest_rolls_ends_the_operation_but_not_the_generation() -> None:
    core = running(settings({"mail": pool(shards=2)}))
    client = core.ask("restart", pool="mail")
    core.make_ready("mail/0")
    core.wait(2.0)
    core.exit(core.process("mail/1"), 70)
    refused = answer(core, client)
    assert not refused["ok"]
    assert refused["error"].startswith("generation 2 is in force, but mail/1 of the new generation exited with code 70")
    core.wait(1.0)
    assert core.process("mail/1").generation == 2


def test_every_problem_of_the_file_is_answered_and_nothing_changes() -> None:
    core = running()
    client = core.ask("reload")
    core.load([PROBLEM, PROBLEM])
    reason = f"{CONFIG_PATH}:3: pools.mail: expected a mapping (indent it), and 1 more"
    assert answer(core, client) == {"ok": False, "code": 78, "error": reason, "problems": [PROBLEM] * 2, "source": CONFIG_PATH}
    assert core.events(ReloadRefused) == [ReloadRefused(78, reason)], "a hangup has no other answer than the log"
    assert core.names() == ["keeper", "mail/0"]


def test_a_loader_that_dies_without_an_answer_is_told_to_try_again() -> None:
    core = running()
    client = core.ask("reload")
    core.exit(core.process("loader"), 1)
    refused = answer(core, client)
    assert (refused["code"], refused["error"]) == (75, "the configuration could not be read: the loader exited with code 1")


@pytest.mark.parametrize("lacking", ["runtime", "heartbeat"])
def test_an_answer_that_cannot_be_understood_holds_up_no_later_reload(lacking: str) -> None:
    """As of a newer program that was installed in the place of the one that runs."""
    core = running()
    client = core.ask("reload")
    mail = {key: value for key, value in settings()["pools"]["mail"].items() if key != lacking}
    core.load({key: value for key, value in {**settings(), "pools": {"mail": mail}}.items() if key != lacking})
    refused = answer(core, client)
    assert (refused["code"], refused["error"]) == (75, "the configuration could not be read: the loader exited with code 0")
    client = core.ask("reload")
    core.load(settings())
    assert answer(core, client)["ok"]


def test_a_loader_that_hangs_is_killed_after_half_a_minute() -> None:
    core = running()
    core.ask("reload")
    loader = core.process("loader")
    core.wait(29.9)
    assert loader.state is ProcessState.BOOTING
    core.wait(0.1)
    assert loader.state is ProcessState.STOPPING


def test_a_dry_run_prints_the_plan_and_does_nothing() -> None:
    core = running()
    client = core.ask("reload", dry_run=True)
    core.load(ROLLING)
    assert answer(core, client)["plan"] == [{"key": "pools.mail.mode", "class": "rolling", "old": "process", "new": "thread"}]
    assert not answer(core, client)["changed"]
    assert (core.names(), core.state.plan.settings) == (["keeper", "mail/0"], settings())
    assert core.events(ReloadStarted) == []
    assert not [note for note in core.notes() if "RELOADING" in note]


def test_a_dry_run_that_shares_a_reload_is_answered_before_it_is_done() -> None:
    core = running()
    first = core.ask("reload")
    dry, wet = core.ask("reload", dry_run=True), core.ask("reload")
    core.load(settings())
    assert answer(core, first)["ok"]
    core.step()
    core.load(ROLLING)
    assert answer(core, dry)["plan"]
    assert core.answer(wet) is None


def test_reloads_that_arrive_during_one_share_the_next() -> None:
    core = running()
    clients = [core.ask("reload") for _ in range(10)]
    core.signal(SignalName.HUP)
    assert loaders(core) == 1
    core.load(settings())
    assert [core.answer(client) is not None for client in clients] == [True] + [False] * 9
    core.step()
    assert loaders(core) == 2
    core.load(LIVE)
    core.step()
    assert {answer(core, client)["changed"] for client in clients[1:]} == {True}
    core.wait(10.0)
    assert loaders(core) == 2


def test_a_restart_waits_for_a_reload_and_reads_no_file() -> None:
    core = running()
    core.ask("reload")
    client = core.ask("restart", pool="mail")
    core.load(settings())
    core.step()
    assert loaders(core) == 1
    assert core.process("mail/0").generation == 3, "every attempt has a number of its own"
    core.make_ready("mail/0")
    core.wait(2.0)
    assert answer(core, client) == {"ok": True, "changed": True, "plan": [], "generation": 3}


def test_a_pool_that_a_reload_removed_cannot_be_restarted() -> None:
    core = running(settings({"mail": pool(), "bulk": pool()}))
    core.ask("reload")
    client = core.ask("restart", pool="bulk")
    core.load(settings())
    core.step()
    assert answer(core, client)["error"] == "pool bulk was removed by a reload"
    assert core.process("bulk/0").state is ProcessState.DRAINING


def test_a_client_that_left_is_not_answered_but_its_reload_goes_on() -> None:
    core = running()
    first, second = core.ask("reload"), core.ask("reload")
    core.step(ClientLeft(first))
    core.step(ClientLeft(second))
    core.load(LIVE)
    core.wait(5.0)
    assert (core.answer(first), core.answer(second), loaders(core)) == (None, None, 1)
    assert core.state.plan.settings == LIVE


def test_a_reload_tries_a_refused_pool_again_and_a_restart_only_its_own() -> None:
    core = running(settings({"mail": pool(), "bulk": pool()}))
    core.exit(core.process("mail/0"), 78)
    core.exit(core.process("bulk/0"), 78)
    assert core.names() == ["keeper"]
    core.ask("restart", pool="mail")
    core.make_ready("mail/0")
    core.wait(2.0)
    assert core.names() == ["keeper", "mail/0"]
    core.ask("reload")
    core.load(core.state.plan.settings)
    assert core.names() == ["keeper", "mail/0", "bulk/0"]


def test_other_source_files_roll_every_pool() -> None:
    core = running(settings(runtime={**settings()["runtime"], "release": "one"}))
    client = core.ask("reload")
    core.load(core.state.plan.settings, release="two")
    assert core.process("mail/0").generation == 2
    core.make_ready("mail/0")
    core.wait(2.0)
    assert answer(core, client)["plan"] == [{"key": "code", "class": "rolling", "old": "one", "new": "two"}]
    core.ask("reload")
    core.load(core.state.plan.settings, release="two")
    assert core.process("mail/0").generation == 2


def test_shards_come_and_go_with_their_number_without_a_new_generation() -> None:
    core = running()
    core.ask("reload")
    core.load(settings({"mail": pool(shards=3)}))
    assert core.names() == ["keeper", "mail/0", "mail/1", "mail/2"]
    core.make_all_ready()
    core.ask("reload")
    core.load(settings())
    assert [p.unit.name for p in core.state.roster if p.state is ProcessState.DRAINING] == ["mail/1", "mail/2"]


def test_the_service_manager_sees_a_reload_begin_and_end() -> None:
    core = running()
    core.ask("reload")
    core.load([PROBLEM])
    reloading = [note for note in core.notes() if "RELOADING" in note or note.get("READY")][-2:]
    assert reloading[0] == {"RELOADING": "1", "MONOTONIC_USEC": str(int(core.now * 1e6)), "STATUS": "reload"}
    assert reloading[1]["READY"] == "1"


def test_keys_for_a_restart_are_named_every_time() -> None:
    core = running()
    for _ in range(2):
        client = core.ask("reload")
        core.load(settings(database="postgresql://elsewhere/x"))
        assert [change["class"] for change in answer(core, client)["plan"]] == ["restart"]
        assert not answer(core, client)["changed"]


def test_a_generation_in_force_that_waits_for_its_database_holds_up_neither_the_answer_nor_the_next_reload() -> None:
    core = running(settings({"mail": pool(shards=2)}))
    client = core.ask("restart", pool="mail")
    core.make_ready("mail/0")
    core.wait(2.0)
    late = core.process("mail/1")
    core.say(late, "hello", pid=1)
    waiting = core.ask("reload")
    for _ in range(47):
        core.say(late, "snapshot", snapshot={"database": {"up": False, "since_s": 1.0, "error": "refused"}})
        core.wait(1.0)
    assert core.answer(client) is None
    core.say(late, "snapshot", snapshot={"database": {"up": False, "since_s": 1.0, "error": "refused"}})
    core.wait(3.0)
    found = answer(core, client)
    assert (found["ok"], found["code"]) == (False, 75)
    assert "generation 2 is in force, but not all of it became ready in time" in found["error"]
    assert late.state is ProcessState.BOOTING, "it goes on"
    core.load(core.state.plan.settings)
    assert answer(core, waiting)["ok"]
