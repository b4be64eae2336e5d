"""Wanted against actual, for every mixture of units, generations and states."""

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.reconcile import Want, reconcile
from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.process import Process
from reproq_supervisor.core.supervision.states import FILLING, ProcessState
from reproq_supervisor.core.supervision.units import KEEPER, LOADER, ONE_SHOTS, PREPARE, Role, Serial, Unit

PLAN = Plan({})
MAIL = Unit(Role.SHARD, "mail", 0)
units = st.sampled_from([KEEPER, PREPARE, LOADER, MAIL, Unit(Role.SHARD, "mail", 1), Unit(Role.SHARD, "bulk", 0)])
wants = st.builds(Want, units, st.integers(1, 3))
wanted_lists = st.lists(wants, unique=True, max_size=8)


def process(want: Want, state: ProcessState) -> Process:
    return Process(Serial(0), want.unit, want.generation, PLAN, 0.0, state)


processes = st.builds(process, wants, st.sampled_from(ProcessState))


@given(wanted_lists, st.lists(processes, max_size=12))
def test_what_nobody_fills_is_missing_and_nothing_else(wanted: list[Want], actual: list[Process]) -> None:
    filled = {Want(p.unit, p.generation) for p in actual if p.state in FILLING}
    assert list(reconcile(wanted, actual).missing) == [want for want in wanted if want not in filled]


@given(wanted_lists, st.lists(processes, max_size=12))
def test_nobody_is_drained_who_is_wanted_starting_leaving_or_ends_by_itself(wanted: list[Want], actual: list[Process]) -> None:
    for unwanted in reconcile(wanted, actual).unwanted:
        assert Want(unwanted.unit, unwanted.generation) not in wanted
        assert unwanted.state in (ProcessState.BOOTING, ProcessState.READY)
        assert unwanted.unit.role not in ONE_SHOTS


@given(wanted_lists, st.lists(processes, max_size=12))
def test_an_old_process_stays_exactly_until_its_successor_is_ready(wanted: list[Want], actual: list[Process]) -> None:
    ready = {Want(p.unit, p.generation) for p in actual if p.state is ProcessState.READY}
    drained = {id(p) for p in reconcile(wanted, actual).unwanted}
    for p in actual:
        if p.state not in (ProcessState.BOOTING, ProcessState.READY) or p.unit.role in ONE_SHOTS:
            continue
        is_wanted = Want(p.unit, p.generation) in wanted
        awaited = any(want.unit == p.unit and want.generation > p.generation and want not in ready for want in wanted)
        assert (id(p) in drained) == (not is_wanted and not awaited)


@given(wanted_lists, st.lists(processes, max_size=12))
def test_two_rounds_of_starting_and_draining_leave_nothing_to_do(wanted: list[Want], actual: list[Process]) -> None:
    for _ in range(2):
        differences = reconcile(wanted, actual)
        gone = {id(p) for p in differences.unwanted}
        # Whatever boots becomes ready; what was asked to leave is gone.
        actual = [process(Want(p.unit, p.generation), ProcessState.READY) for p in actual if p.fills and id(p) not in gone]
        actual += [process(want, ProcessState.READY) for want in differences.missing]
    assert reconcile(wanted, actual).missing == ()
    assert reconcile(wanted, actual).unwanted == ()


def test_an_old_process_is_kept_beside_a_canary_that_boots() -> None:
    old, canary = process(Want(MAIL, 1), ProcessState.READY), process(Want(MAIL, 2), ProcessState.BOOTING)
    assert reconcile([Want(MAIL, 2)], [old, canary]).unwanted == ()
    canary.state = ProcessState.READY
    assert reconcile([Want(MAIL, 2)], [old, canary]).unwanted == (old,)


def test_a_canary_that_is_wanted_no_more_goes_whether_or_not_it_is_ready() -> None:
    old = process(Want(MAIL, 1), ProcessState.READY)
    for state in (ProcessState.BOOTING, ProcessState.READY):
        canary = process(Want(MAIL, 2), state)
        assert reconcile([Want(MAIL, 1)], [old, canary]).unwanted == (canary,)


def test_a_unit_of_a_removed_pool_goes_at_once() -> None:
    last = process(Want(MAIL, 1), ProcessState.READY)
    assert reconcile([Want(KEEPER, 1)], [last]).unwanted == (last,)
