"""Single stories in the simulated world, with exact times."""

from itertools import pairwise

import pytest

from reproq_supervisor.core.supervision.answers import status
from reproq_supervisor.core.supervision.commands import AskStacks, KillOrphan, Send
from reproq_supervisor.core.supervision.facts import ChildSaid, ClientLeft, SignalName, SignalReceived
from reproq_supervisor.core.supervision.units import KEEPER, LOADER, POSTGRES, PREPARE, Role, Unit
from tests.sim.behaviour import GOOD, NEVER, Behaviour
from tests.sim.invariants import check_all
from tests.sim.settings import pool, settings
from tests.sim.world import SimChild, World

CRASHES = Behaviour(ready_s=NEVER, dies_s=0.2, code=70)


def a_world(pools: dict[str, dict[str, object]] | None = None, **options: object) -> World:
    behave = options.pop("behave", lambda unit, generation: GOOD)
    world = World(1, settings(pools, **options), behave=behave)  # type: ignore[arg-type]
    world.watchers += check_all()
    return world


def running(**options: object) -> World:
    world = a_world(**options)  # type: ignore[arg-type]
    world.run(5.0)
    return world


def only(world: World, role: Role) -> SimChild:
    (child,) = world.living(role)
    return child


def starts(world: World, name: str) -> list[float]:
    return [round(at - world.born, 1) for at, command in world.spawned if command.unit.name == name]


def events(world: World, name: str) -> list[object]:
    return [event for _, event in world.events if event.name == name]


def told(world: World, child: SimChild) -> list[str]:
    return [command.message["type"] for _, command in world.sent if command.serial == child.serial]


def test_the_database_comes_first_then_its_schema_then_keeper_and_shards() -> None:
    world = running(embedded=True)
    assert [command.unit for _, command in world.spawned] == [POSTGRES, PREPARE, KEEPER, Unit(Role.SHARD, "mail", 0)]


def test_a_database_that_cannot_be_prepared_at_all_ends_the_daemon() -> None:
    world = a_world(embedded=True)
    world.run(0.1)
    prepare = only(world, Role.PREPARE)
    world.feed(ChildSaid(prepare.serial, {"type": "failed", "reason": "schema: newer than ours", "permanent": True}))
    prepare.behaviour = Behaviour()
    world.at(0.0, lambda: world._exit(prepare, 70, None))
    world.run(30.0)
    assert world.exit_code == 78
    assert "newer than ours" in str(events(world, "supervisor.stopping"))


def test_a_crashing_shard_is_restarted_after_growing_pauses_then_quarantined_then_probed() -> None:
    world = a_world({"mail": pool(), "bulk": pool()}, behave=lambda unit, generation: CRASHES if unit.pool == "mail" else GOOD)
    world.run(400.0)
    times = starts(world, "mail/0")
    gaps = [round(later - earlier, 1) for earlier, later in pairwise(times)]
    # 0.2 s of life, then a pause of which jitter takes up to half: 0.5 1 2 4 8, then probes after 30, 60, 120 s.
    for gap, pause in zip(gaps[:5], (0.5, 1, 2, 4, 8), strict=True):
        assert 0.2 + pause / 2 <= gap <= 0.3 + pause
    assert [round(gap) for gap in gaps[5:8]] == [30, 60, 120]
    assert world.living(Role.SHARD)[0].unit.pool == "bulk"
    assert [event.group for event in events(world, "group.quarantined")] == ["pool mail"] * 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("hangs", "hung_s"), [(Behaviour(ready_s=NEVER), 20.0), (Behaviour(silent_s=0.05), 20.0), (Behaviour(ready_s=0.5, silent_s=1.0), 7.0)]
)
def test_what_hangs_again_and_again_is_started_after_growing_pauses_and_then_in_quarantine(hangs: Behaviour, hung_s: float) -> None:
    world = a_world({"mail": pool(), "bulk": pool()}, behave=lambda unit, generation: hangs if unit.pool == "mail" else GOOD)
    world.run(700.0)
    gaps = [later - earlier for earlier, later in pairwise(starts(world, "mail/0"))]
    # Found out after its deadline, then a pause of which jitter takes up to half: 0.5 1 2 4 8, then probes after 30, 60, 120 s.
    for gap, pause in zip(gaps[:8], (0.5, 1, 2, 4, 8, 30, 60, 120), strict=True):
        assert hung_s - 0.6 + pause / 2 <= gap <= hung_s + 0.6 + pause
    assert "pool mail" in {event.group for event in events(world, "group.quarantined")}  # type: ignore[attr-defined]
    assert {child.unit.pool for child in world.living(Role.SHARD) if child.ready and not child.frozen} == {"bulk"}


def test_crashes_just_after_readiness_count_as_well() -> None:
    world = a_world(behave=lambda unit, generation: Behaviour(dies_s=2.0) if unit.role is Role.SHARD else GOOD)
    world.run(120.0)
    assert events(world, "group.quarantined")


def test_a_probe_that_holds_brings_the_whole_pool_back() -> None:
    bad = True
    world = a_world({"mail": pool(shards=3)}, behave=lambda unit, generation: CRASHES if bad and unit.role is Role.SHARD else GOOD)
    assert world.until(lambda: bool(events(world, "group.quarantined")), within=60)
    bad = False
    assert world.until(lambda: len(world.living(Role.SHARD)) == 1, within=40)
    world.run(5.0)
    assert len(world.living(Role.SHARD)) == 1, "one at a time"
    assert world.until(lambda: len(world.living(Role.SHARD)) == 3, within=15)


def test_a_frozen_shard_writes_its_stacks_and_is_killed_within_its_deadline() -> None:
    world = running()
    shard = only(world, Role.SHARD)
    shard.frozen = True
    frozen_at = world.now
    assert world.until(lambda: shard.killed_at is not None, within=30)
    assert shard.killed_at is not None
    assert shard.killed_at - frozen_at <= 3 * 2.0 + 0.3 + 0.1
    assert world.until(lambda: only(world, Role.SHARD).ready, within=5)


def test_stacks_are_asked_for_before_a_hung_process_is_killed() -> None:
    asked: list[AskStacks] = []
    world = running()
    world.watchers.append(lambda world, fact, commands: asked.extend(c for c in commands if isinstance(c, AskStacks)))
    shard = only(world, Role.SHARD)
    shard.frozen = True
    assert world.until(lambda: bool(asked), within=10)
    assert [command.serial for command in asked] == [shard.serial]
    assert shard.killed_at is None
    world.run(0.5)
    assert shard.killed_at is not None


def test_twenty_hung_shards_are_handled_in_one_more_window_not_one_after_the_other() -> None:
    world = running(pools={"mail": pool(shards=20)})
    for child in world.living(Role.SHARD):
        child.frozen = True
    frozen_at = world.now
    assert world.until(lambda: len(events(world, "process.condemned")) == 20, within=60)
    assert world.now - frozen_at <= 2 * 6.0 + 1.0
    assert len(events(world, "processes.spared")) == 1


def test_one_hung_shard_of_many_is_not_spared() -> None:
    world = running(pools={"mail": pool(shards=20)})
    world.living(Role.SHARD)[3].frozen = True
    world.run(7.0)
    assert not events(world, "processes.spared")
    assert len(events(world, "process.condemned")) == 1


def test_an_hour_of_sleep_kills_nobody() -> None:
    world = running(pools={"mail": pool(shards=3)})
    before = {child.pid for child in world.living()}
    world.sleep_supervisor(3600.0)
    world.run(20.0)
    assert {child.pid for child in world.living()} == before
    assert len(events(world, "supervisor.overslept")) == 1


def test_leases_of_a_dead_shard_wait_for_a_keeper() -> None:
    world = running()
    shard, keeper = only(world, Role.SHARD), only(world, Role.KEEPER)
    keeper.frozen = True
    world.kill(keeper)
    world.kill(shard)
    assert world.until(lambda: bool(world.living(Role.KEEPER)) and only(world, Role.KEEPER).ready, within=10)
    world.run(1.0)
    assert [kind for kind in told(world, only(world, Role.KEEPER)) if kind == "release_dead"] == ["release_dead"]
    assert len(world.core.state.dead_workers) == 0


def test_a_keeper_that_dies_before_it_answered_leaves_the_release_to_the_next() -> None:
    world = running()
    first = only(world, Role.KEEPER)
    world.kill(only(world, Role.SHARD))
    assert world.until(lambda: "release_dead" in told(world, first), within=5)
    first.frozen = True
    world.kill(first)
    assert world.until(lambda: bool(world.living(Role.KEEPER)) and only(world, Role.KEEPER).ready, within=10)
    world.run(1.0)
    assert "release_dead" in told(world, only(world, Role.KEEPER))


def test_ten_reloads_at_once_cost_two_loads_and_answer_all() -> None:
    world = running()
    clients = [world.ask("reload") for _ in range(10)]
    world.run(5.0)
    assert all(world.replies[client] == [{"ok": True, "changed": False, "plan": [], "generation": 1}] for client in clients)
    assert sum(command.unit == LOADER for _, command in world.spawned) == 2


def test_a_reload_that_waits_sees_what_changed_while_the_first_was_under_way() -> None:
    world = running()
    first = world.ask("reload")
    world.settings_on_disk = settings({"mail": pool(executors={"min": 1, "max": 9})})
    second = world.ask("reload")
    world.run(5.0)
    assert world.replies[first][0]["ok"]
    # Which of the two saw it depends on the disk; that the second did not miss it is the promise.
    assert world.core.state.plan.pools["mail"]["executors"]["max"] == 9
    assert world.replies[second][0]["ok"]


def test_a_client_that_leaves_does_not_end_its_reload() -> None:
    world = running()
    world.settings_on_disk = settings({"mail": pool(executors={"min": 1, "max": 9})})
    client = world.ask("reload")
    world.feed(ClientLeft(client))
    world.run(5.0)
    assert world.replies[client] == []
    assert world.core.state.plan.pools["mail"]["executors"]["max"] == 9


def test_new_source_files_roll_every_pool_though_no_setting_changed() -> None:
    world = running()
    old = only(world, Role.SHARD)
    world.core.state.release = "v1"
    client = world.ask("reload")
    loader = only(world, Role.LOADER)
    world.feed(ChildSaid(loader.serial, {"type": "settings", "settings": world.settings, "release": "v2"}))
    world.run(10.0)
    answer = world.replies[client][0]
    assert answer["plan"] == [{"key": "code", "class": "rolling", "old": "v1", "new": "v2"}]
    assert not old.alive
    assert world.core.state.release == "v2"


def test_a_refused_release_is_tried_again_by_the_next_reload() -> None:
    world = running(behave=lambda unit, generation: CRASHES if generation == 2 and unit.role is Role.SHARD else GOOD)
    world.core.state.release = "v1"
    for expected in (False, True):
        client = world.ask("reload")
        loader = only(world, Role.LOADER)
        world.feed(ChildSaid(loader.serial, {"type": "settings", "settings": world.settings, "release": "v2"}))
        world.run(10.0)
        assert world.replies[client][0]["ok"] is expected
    assert world.core.state.release == "v2"


def test_the_canary_of_a_refused_reload_is_on_nobodys_account() -> None:
    world = running(behave=lambda unit, generation: CRASHES if generation > 1 and unit.role is Role.SHARD else GOOD)
    world.settings_on_disk = settings({"mail": pool(mode="other")})
    for _ in range(20):
        client = world.ask("reload")
        world.run(1.0)
        assert world.replies[client][0]["ok"] is False
    account = status(world.core.state, world.now)["pools"]["mail"]["account"]
    assert (account["circuit"], account["recent_exits"]) == ("closed", 0)


def test_what_fails_after_the_switch_is_told_but_not_rolled_back() -> None:
    world = running(
        pools={"mail": pool(shards=2)},
        behave=lambda unit, generation: CRASHES if generation == 2 and unit.shard == 1 and unit.role is Role.SHARD else GOOD,
    )
    old = next(child for child in world.living(Role.SHARD) if child.unit.shard == 1)
    world.settings_on_disk = settings({"mail": pool(shards=2, mode="other")})
    client = world.ask("reload")
    world.run(10.0)
    answer = world.replies[client][0]
    assert answer["ok"] is False
    assert "generation 2 is in force, but mail/1 of the new generation exited with code 70" in answer["error"]
    assert old.alive, "the old shard works until its successor does"


def test_an_old_generation_may_finish_what_it_runs_for_as_long_as_a_task_may_take() -> None:
    world = running(pools={"mail": pool(timeout=900.0)})
    world.settings_on_disk = settings({"mail": pool(timeout=900.0, mode="other")})
    world.ask("reload")
    world.run(5.0)
    drains = [command.message["timeout"] for _, command in world.sent if command.message["type"] == "drain"]
    assert len(drains) == 1
    assert drains[0] >= 900.0


def test_a_stop_shortens_the_drain_of_an_old_generation() -> None:
    slow = Behaviour(drain_s=NEVER)
    world = running(pools={"mail": pool(timeout=900.0)}, behave=lambda unit, generation: slow if generation == 1 and unit.pool else GOOD)
    old = only(world, Role.SHARD)
    world.settings_on_disk = settings({"mail": pool(timeout=900.0, mode="other")})
    world.ask("reload")
    world.run(5.0)
    world.feed(SignalReceived(SignalName.TERM))
    world.run(30.0)
    assert world.exit_code == 0
    assert told(world, old)[-2:] == ["drain", "drain"]


def test_a_shard_that_waits_for_its_database_is_not_killed_for_booting_slowly() -> None:
    world = a_world(behave=lambda unit, generation: Behaviour(ready_s=NEVER) if unit.role is Role.SHARD else GOOD)
    world.run(0.5)
    shard = only(world, Role.SHARD)
    snapshot = {"type": "snapshot", "snapshot": {"running": 0, "progress": 0, "database": {"up": False, "since_s": 1, "error": "gone"}}}
    for _ in range(300):
        world.feed(ChildSaid(shard.serial, snapshot))
        world.run(1.0)
    assert shard.alive
    assert status(world.core.state, world.now)["state"] == "running", "the daemon is up without its database"


@pytest.mark.parametrize("first", [SignalName.TERM, SignalName.INT])
def test_a_second_interrupt_is_quick_and_a_second_term_is_not(first: SignalName) -> None:
    world = running(behave=lambda unit, generation: Behaviour(drain_s=NEVER) if unit.pool else GOOD)
    shard = only(world, Role.SHARD)
    world.feed(SignalReceived(first))
    world.feed(SignalReceived(SignalName.TERM))
    assert told(world, shard)[-1] == "drain"
    asked_at = world.now
    world.feed(SignalReceived(SignalName.INT))
    assert told(world, shard)[-1] == "quit"
    world.run(30.0)
    assert world.exited_at - asked_at < 6.0


def test_each_phase_of_the_end_asks_each_process_once() -> None:
    world = running(embedded=True, pools={"mail": pool(shards=3)})
    world.feed(SignalReceived(SignalName.TERM))
    world.run(30.0)
    for child in world.children.values():
        if child.unit.role in (Role.SHARD, Role.KEEPER):
            assert [kind for kind in told(world, child) if kind in ("drain", "quit")] == ["drain"]


def test_the_service_manager_is_asked_for_patience_while_a_slow_pool_boots() -> None:
    world = a_world(behave=lambda unit, generation: Behaviour(ready_s=15.0) if unit.pool else GOOD)
    world.run(14.0)
    assert sum("EXTEND_TIMEOUT_USEC" in note for _, note in world.notes) >= 6
    assert not any("READY" in note for _, note in world.notes)
    world.run(5.0)
    assert any("READY" in note for _, note in world.notes)


def test_a_refused_configuration_says_so_to_the_service_manager_and_is_ready_again() -> None:
    world = running()
    world.settings_on_disk = [{"path": "pools", "line": 1, "column": 1, "message": "no", "hint": None}]
    world.feed(SignalReceived(SignalName.HUP))
    world.run(2.0)
    words = [note for _, note in world.notes if "RELOADING" in note or "READY" in note]
    assert ["RELOADING" in note for note in words] == [False, True, False]
    reloading = words[1]
    assert int(reloading["MONOTONIC_USEC"]) == pytest.approx((world.born + 5.0) * 1e6, abs=2e5)


def test_messages_that_are_not_understood_are_logged_and_harmless() -> None:
    world = running()
    shard = only(world, Role.SHARD)
    for message in (
        {"type": "nosuch"},
        {},
        {"type": "snapshot"},
        {"type": "snapshot", "snapshot": [1]},
        {"type": "nursery", "pid": "x"},
        {"type": "failed"},
        {"type": "released", "worker_ids": 3, "count": 1},
        {"type": "settled", "worker_ids": 3},
        {"type": "settings", "settings": {}},
    ):
        world.feed(ChildSaid(shard.serial, message))
    assert len(events(world, "process.message_ignored")) == 9
    world.run(10.0)
    assert shard.alive


def test_scaling_is_told_ends_with_its_time_and_holds_for_new_shards() -> None:
    world = running()
    shard = only(world, Role.SHARD)
    world.ask("scale", pool="mail", executors=9, for_s=20)
    sizes = lambda child: [  # noqa: E731
        c.message["pool_settings"]["executors"]["max"]
        for _, c in world.sent
        if isinstance(c, Send) and c.serial == child.serial and "pool_settings" in c.message
    ]
    assert sizes(shard) == [2, 9]
    world.kill(shard)
    world.run(5.0)
    new = only(world, Role.SHARD)
    assert sizes(new) == [9]
    world.run(20.0)
    assert sizes(new) == [9, 2]


def test_a_reload_while_scaled_keeps_the_override() -> None:
    world = running()
    world.ask("scale", pool="mail", executors=9, for_s=None)
    world.settings_on_disk = settings({"mail": pool(executors={"min": 1, "max": 4})})
    world.ask("reload")
    world.run(5.0)
    assert world.core.state.pool_settings(world.core.state.plan, "mail")["executors"] == {"min": 9, "max": 9}  # type: ignore[index]


def test_an_adopted_nursery_is_left_to_leave_by_itself_and_a_stranger_is_not() -> None:
    world = running(behave=lambda unit, generation: Behaviour(nursery_s=0.5, strangers=2) if unit.pool else GOOD)
    killed: list[int] = []
    world.watchers.append(lambda world, fact, commands: killed.extend(c.pid for c in commands if isinstance(c, KillOrphan)))
    shard = only(world, Role.SHARD)
    world.kill(shard)
    world.run(2.0)
    assert len(killed) == 2
    assert shard.nursery not in killed


def test_time_slept_is_not_taken_from_those_who_are_leaving() -> None:
    world = running(behave=lambda unit, generation: Behaviour(drain_s=61.0) if unit.pool else GOOD)
    shard = only(world, Role.SHARD)
    world.feed(SignalReceived(SignalName.TERM))
    world.sleep_supervisor(60.0)
    world.run(30.0)
    assert world.exit_code == 0
    assert shard.killed_at is None


def test_a_canary_that_dies_in_its_probation_leaves_the_old_generation_in_force() -> None:
    dies = Behaviour(ready_s=0.5, dies_s=1.3)
    world = running(behave=lambda unit, generation: dies if generation > 1 and unit.pool else GOOD)
    old = only(world, Role.SHARD)
    world.settings_on_disk = settings({"mail": pool(mode="other")})
    client = world.ask("reload")
    world.run(10.0)
    assert world.replies[client][0]["ok"] is False
    assert old.alive
    assert world.core.state.generation == 1


def test_a_live_change_is_told_to_shards_and_keeper() -> None:
    world = running()
    children = [only(world, Role.SHARD), only(world, Role.KEEPER)]
    world.settings_on_disk = settings({"mail": pool(executors={"min": 1, "max": 9})}, keeper={"beat": False})
    world.ask("reload")
    world.run(2.0)
    assert [told(world, child) for child in children] == [["start", "adjust"], ["start", "adjust"]]


def test_the_keeper_is_kept_for_the_leases_of_a_shard_that_died_while_draining() -> None:
    world = running(behave=lambda unit, generation: Behaviour(drain_s=NEVER) if unit.pool else GOOD)
    keeper = only(world, Role.KEEPER)
    world.feed(SignalReceived(SignalName.TERM))
    world.run(60.0)
    assert world.exit_code == 0
    assert [kind for kind in told(world, keeper) if kind != "start"] == ["release_dead", "drain"]


def test_a_keeper_that_does_not_answer_is_not_waited_for_long() -> None:
    world = running(behave=lambda unit, generation: GOOD)
    only(world, Role.KEEPER).frozen = True
    asked_at = world.now
    world.feed(SignalReceived(SignalName.TERM))
    world.run(60.0)
    assert world.exit_code == 0
    assert world.exited_at - asked_at < 2.0 + 3.0 + 3.0


def test_the_end_waits_for_the_answer_to_a_release_rather_than_racing_it() -> None:
    world = running()
    keeper = only(world, Role.KEEPER)
    world.feed(SignalReceived(SignalName.TERM))
    world.run(10.0)
    released_at = next(at for at, event in world.events if event.name == "workers.released")
    drained_at = next(at for at, command in world.sent if command.serial == keeper.serial and command.message["type"] == "drain")
    assert released_at <= drained_at


def test_what_has_not_said_hello_is_ended_by_a_signal_and_what_boots_is_told_to_quit() -> None:
    world = a_world({"mail": pool()}, behave=lambda unit, generation: Behaviour(ready_s=5.0) if unit.pool else GOOD)
    shard = only(world, Role.SHARD)
    world.feed(SignalReceived(SignalName.TERM))
    world.run(5.0)
    assert (world.exit_code, told(world, shard)) == (0, ["start"])
    world = a_world({"mail": pool()}, behave=lambda unit, generation: Behaviour(ready_s=5.0) if unit.pool else GOOD)
    world.run(1.0)
    shard = only(world, Role.SHARD)
    world.feed(SignalReceived(SignalName.TERM))
    world.run(5.0)
    assert (world.exit_code, told(world, shard)) == (0, ["start", "quit"])


def test_a_stop_never_gives_more_time_to_who_is_leaving_already() -> None:
    world = a_world(
        {"mail": pool(timeout=5.0)},
        behave=lambda unit, generation: Behaviour(drain_s=NEVER) if generation == 1 and unit.pool else GOOD,
        shutdown_timeout=600.0,
    )
    world.run(5.0)
    old = only(world, Role.SHARD)
    world.settings_on_disk = settings({"mail": pool(timeout=5.0, mode="other")}, shutdown_timeout=600.0)
    world.ask("reload")
    world.run(5.0)
    world.run(590.0)
    assert old.killed_at is None
    stopped_at = world.now
    world.feed(SignalReceived(SignalName.TERM))
    world.run(100.0)
    assert old.killed_at is not None
    assert old.killed_at - stopped_at < 20.0


def test_a_new_shard_of_a_paused_pool_learns_of_it_when_it_listens() -> None:
    world = running()
    world.ask("drain", pool="mail")
    first = only(world, Role.SHARD)
    world.kill(first)
    world.run(5.0)
    assert told(world, only(world, Role.SHARD)) == ["start", "pause"]


def test_nothing_is_told_before_hello_and_everything_with_it() -> None:
    world = a_world({"mail": pool()}, behave=lambda unit, generation: Behaviour(ready_s=5.0) if unit.pool else GOOD)
    world.run(0.01)
    shard = only(world, Role.SHARD)
    world.ask("scale", pool="mail", executors=9, for_s=None)
    world.ask("drain", pool="mail")
    assert told(world, shard) == ["start"]
    world.run(1.0)
    assert told(world, shard) == ["start", "adjust", "pause"]


def test_what_was_taken_out_of_the_configuration_leaves_no_account_behind() -> None:
    world = running(pools={"mail": pool(shards=3), "bulk": pool()})
    world.settings_on_disk = settings({"mail": pool(shards=1)})
    world.ask("reload")
    world.run(10.0)
    assert {unit.name for health in world.core.state.healths.values() for unit in health.units} == {"keeper", "mail/0"}
    assert len(world.living()) == 2
