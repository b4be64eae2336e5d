"""The table of process states is complete, ends, and is the only thing that moves a process."""

import ast
from pathlib import Path

import pytest

import reproq_supervisor.core.supervision as supervision
from reproq_supervisor.core.supervision.states import TABLE, IllegalTransitionError, ProcessEvent, ProcessState, advance


def test_every_state_but_the_last_leads_to_the_end() -> None:
    ends = {ProcessState.GONE}
    while True:
        more = {state for (state, _), after in TABLE.items() if after in ends} - ends
        if not more:
            break
        ends |= more
    assert ends == set(ProcessState)


def test_nothing_follows_the_end() -> None:
    assert not [event for event in ProcessEvent if (ProcessState.GONE, event) in TABLE]


def test_every_state_and_event_is_used() -> None:
    assert {state for state, _ in TABLE} | {ProcessState.GONE} == set(ProcessState)
    assert {event for _, event in TABLE} == set(ProcessEvent)


def test_a_process_that_lives_can_always_exit_and_always_be_killed() -> None:
    for state in (ProcessState.BOOTING, ProcessState.READY, ProcessState.DRAINING, ProcessState.STOPPING):
        assert advance(state, ProcessEvent.EXITED) is ProcessState.GONE
        assert advance(state, ProcessEvent.EXITED_LEAVING_OTHERS) is ProcessState.LINGERING
        assert advance(state, ProcessEvent.KILL_DECIDED) is ProcessState.STOPPING


def test_a_pair_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(IllegalTransitionError, match="gone cannot take started"):
        advance(ProcessState.GONE, ProcessEvent.STARTED)


def test_only_move_assigns_a_state() -> None:
    assigned = []
    for path in Path(supervision.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            assigned += [
                (path.name, ast.unparse(target)) for target in targets if isinstance(target, ast.Attribute) and target.attr == "state"
            ]
    # In `states` it is an error that remembers, in `supervision` the whole state.
    assert sorted(assigned) == [("process.py", "self.state"), ("states.py", "self.state"), ("supervision.py", "self.state")]
