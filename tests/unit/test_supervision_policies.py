"""Reconciliation, liveness, shutdown and the extent of a reload."""

import pytest

from reproq_supervisor.core.policy.liveness import Spare, judge_silence, slept_too_long_s
from reproq_supervisor.core.policy.reconcile import Want, reconcile
from reproq_supervisor.core.policy.reload import Extent, extent_of, settings_in_force
from reproq_supervisor.core.policy.shutdown import NEXT, ROLES, Phase, must_remain
from reproq_supervisor.core.supervision.operation import Change
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.process import Process, Roster
from reproq_supervisor.core.supervision.states import ProcessEvent
from reproq_supervisor.core.supervision.units import KEEPER, LOADER, PREPARE, Role, Unit
from tests.sim.settings import pool, settings

MAIL = Unit(Role.SHARD, "mail", 0)
PLAN = Plan(settings())


def process(unit: Unit, generation: int, *events: ProcessEvent) -> Process:
    made = Roster().add(unit, generation, PLAN, 0.0)
    for event in events:
        made.move(event)
    return made


def booting(unit: Unit, generation: int = 1) -> Process:
    return process(unit, generation, ProcessEvent.STARTED)


def ready(unit: Unit, generation: int = 1) -> Process:
    return process(unit, generation, ProcessEvent.STARTED, ProcessEvent.BECAME_READY)


class TestReconcile:
    def test_what_is_wanted_and_not_there_is_missing(self) -> None:
        assert reconcile([Want(MAIL, 1)], []).missing == (Want(MAIL, 1),)

    def test_what_is_starting_is_not_missing(self) -> None:
        for there in (process(MAIL, 1), booting(MAIL), ready(MAIL)):
            assert reconcile([Want(MAIL, 1)], [there]).missing == ()

    def test_what_is_leaving_is_missing(self) -> None:
        leaving = process(MAIL, 1, ProcessEvent.STARTED, ProcessEvent.DRAIN_ASKED)
        assert reconcile([Want(MAIL, 1)], [leaving]).missing == (Want(MAIL, 1),)

    def test_an_old_process_stays_until_the_new_one_is_ready(self) -> None:
        old = ready(MAIL, 1)
        assert reconcile([Want(MAIL, 2)], [old]).unwanted == ()
        assert reconcile([Want(MAIL, 2)], [old, booting(MAIL, 2)]).unwanted == ()
        assert reconcile([Want(MAIL, 2)], [old, ready(MAIL, 2)]).unwanted == (old,)

    def test_a_failed_canary_leaves_even_if_the_old_one_is_not_ready(self) -> None:
        canary = ready(MAIL, 2)
        assert reconcile([Want(MAIL, 1)], [booting(MAIL, 1), canary]).unwanted == (canary,)

    def test_a_unit_that_is_no_more_is_drained_at_once(self) -> None:
        gone = ready(Unit(Role.SHARD, "bulk", 0))
        assert reconcile([Want(MAIL, 1)], [ready(MAIL), gone]).unwanted == (gone,)

    def test_one_shot_children_end_by_themselves(self) -> None:
        assert reconcile([], [booting(LOADER), booting(PREPARE)]).unwanted == ()
        assert reconcile([Want(PREPARE, 1)], [booting(PREPARE)]).missing == ()

    def test_what_has_not_started_yet_cannot_be_asked_to_leave(self) -> None:
        assert reconcile([], [process(MAIL, 1)]).unwanted == ()


class TestSilence:
    @pytest.mark.parametrize(("silent", "watched"), [(1, 1), (2, 2), (2, 3), (3, 10), (3, 100)])
    def test_few_or_a_small_part_are_believed_to_hang(self, silent: int, watched: int) -> None:
        assert judge_silence(silent, watched, 6.0, 100.0, spared_before=False) is None

    @pytest.mark.parametrize(("silent", "watched"), [(3, 3), (4, 10), (40, 100)])
    def test_many_at_once_are_spared_for_one_window(self, silent: int, watched: int) -> None:
        assert judge_silence(silent, watched, 6.0, 100.0, spared_before=False) == Spare(106.0)

    def test_they_are_spared_only_once(self) -> None:
        assert judge_silence(40, 100, 6.0, 100.0, spared_before=True) is None

    def test_a_little_late_is_not_overslept(self) -> None:
        assert slept_too_long_s(10.9, 10.0) == 0.0
        assert slept_too_long_s(15.0, 10.0) == 5.0


class TestShutdown:
    def test_every_role_ends_in_exactly_one_phase(self) -> None:
        ended = [role for phase in Phase for role in ROLES[phase]]
        assert sorted(ended) == sorted(Role)

    def test_what_ends_later_is_kept_alive_now(self) -> None:
        phase = Phase.SHARDS
        while phase is not Phase.OVER:
            assert not must_remain(phase) & ROLES[phase]
            phase = NEXT[phase]
        assert must_remain(Phase.SHARDS) == {Role.KEEPER, Role.POSTGRES}


class TestExtent:
    OLD = Plan(settings({"mail": pool(), "bulk": pool()}))

    def extent(self, *changes: Change, new: Plan | None = None) -> Extent:
        return extent_of(changes, self.OLD, new or self.OLD)

    def test_live_changes_roll_nothing(self) -> None:
        assert self.extent(Change("pools.mail.executors.max", "live")) == Extent()

    def test_a_rolling_change_of_a_pool_rolls_that_pool(self) -> None:
        assert self.extent(Change("pools.mail.mode", "rolling")) == Extent(frozenset({"mail"}))

    def test_a_rolling_change_outside_of_the_pools_rolls_all(self) -> None:
        assert self.extent(Change("app.preload", "rolling")) == Extent(frozenset({"mail", "bulk"}))

    def test_the_keeper_rolls_with_what_it_reads_once(self) -> None:
        assert self.extent(Change("store.prepare", "rolling")).keeper is True
        assert self.extent(Change("app.path", "rolling")).keeper is False

    def test_a_new_pool_is_tried_like_a_new_release(self) -> None:
        new = Plan(settings({"mail": pool(), "bulk": pool(), "video": pool()}))
        assert self.extent(Change("pools.video", "rolling"), new=new) == Extent(frozenset({"video"}))

    def test_a_removed_pool_rolls_nothing(self) -> None:
        new = Plan(settings({"mail": pool()}))
        assert self.extent(Change("pools.bulk", "rolling"), new=new) == Extent()

    def test_what_needs_a_restart_keeps_its_value(self) -> None:
        old, new = settings(database="a", control={"socket": "/a"}), settings(database="b", control={"socket": "/b"})
        changes = [Change("database", "restart"), Change("control.socket", "restart")]
        kept = settings_in_force(old, new, changes)
        assert (kept["database"], kept["control"]) == ("a", {"socket": "/a"})


class TestDeadlines:
    def test_a_shard_is_found_silent_before_a_third_of_its_lease_is_over(self) -> None:
        for heartbeat, lease in [(5.0, 60.0), (5.0, 30.0), (0.5, 60.0)]:
            plan = Plan(settings({"mail": pool(heartbeat=heartbeat, lease=lease)}))
            liveness_s = plan.deadlines(MAIL).liveness_s
            assert liveness_s is not None
            assert liveness_s <= 3 * heartbeat
            assert liveness_s < lease / 3

    def test_units_are_the_keeper_and_every_shard(self) -> None:
        plan = Plan(settings({"mail": pool(shards=2)}))
        assert plan.units() == [KEEPER, MAIL, Unit(Role.SHARD, "mail", 1)]
