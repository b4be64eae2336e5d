"""The table of process states: total, always with a way to the end, never back."""

import pytest

from reproq_supervisor.core.supervision.states import ALIVE, FILLING, TABLE, IllegalTransitionError, ProcessEvent, ProcessState, advance

S, E = ProcessState, ProcessEvent
RANK = [S.STARTING, S.BOOTING, S.READY, S.DRAINING, S.STOPPING, S.LINGERING, S.GONE]


def reachable(start: ProcessState) -> set[ProcessState]:
    """Return every state that *start* can lead to, itself included."""
    found, edge = {start}, [start]
    while edge:
        state = edge.pop()
        following = {after for (before, _), after in TABLE.items() if before is state} - found
        found |= following
        edge += following
    return found


@pytest.mark.parametrize("event", ProcessEvent)
@pytest.mark.parametrize("state", ProcessState)
def test_every_pair_has_a_following_state_or_is_a_bug_that_names_both(state: ProcessState, event: ProcessEvent) -> None:
    if (state, event) in TABLE:
        assert advance(state, event) is TABLE[state, event]
        return
    with pytest.raises(IllegalTransitionError, match=f"{state.value} cannot take {event.value}") as raised:
        advance(state, event)
    assert (raised.value.state, raised.value.event) == (state, event)


@pytest.mark.parametrize("state", ProcessState)
def test_every_state_is_reached_and_reaches_the_end(state: ProcessState) -> None:
    assert state in reachable(S.STARTING)
    assert S.GONE in reachable(state)


def test_the_end_is_the_end() -> None:
    assert reachable(S.GONE) == {S.GONE}
    assert not [event for state, event in TABLE if state is S.GONE]


def test_every_event_is_good_for_something() -> None:
    assert {event for _, event in TABLE} == set(ProcessEvent)


def test_nobody_ever_goes_back() -> None:
    for (before, event), after in TABLE.items():
        assert RANK.index(after) >= RANK.index(before), (before, event, after)


@pytest.mark.parametrize("state", sorted(ALIVE - {S.STARTING}))
def test_whoever_lives_may_die_at_any_moment_alone_or_leaving_others(state: ProcessState) -> None:
    assert advance(state, E.EXITED) is S.GONE
    assert advance(state, E.EXITED_LEAVING_OTHERS) is S.LINGERING


@pytest.mark.parametrize("state", [S.BOOTING, S.READY])
def test_whoever_works_may_be_asked_to_leave_or_condemned(state: ProcessState) -> None:
    assert advance(state, E.DRAIN_ASKED) is S.DRAINING
    assert advance(state, E.KILL_DECIDED) is S.STOPPING


@pytest.mark.parametrize("state", [S.READY, S.DRAINING, S.STOPPING])
def test_readiness_that_comes_late_changes_nothing(state: ProcessState) -> None:
    assert advance(state, E.BECAME_READY) is state


def test_the_way_of_a_good_life() -> None:
    state = S.STARTING
    for event in (E.STARTED, E.BECAME_READY, E.DRAIN_ASKED, E.KILL_DECIDED, E.EXITED_LEAVING_OTHERS, E.OTHERS_REAPED):
        state = advance(state, event)
    assert state is S.GONE
    assert advance(S.STARTING, E.START_FAILED) is S.GONE
    assert advance(S.DRAINING, E.KILL_DECIDED) is S.STOPPING


def test_who_fills_a_unit_and_who_lives() -> None:
    assert {S.STARTING, S.BOOTING, S.READY} == FILLING
    assert FILLING | {S.DRAINING, S.STOPPING} == ALIVE
