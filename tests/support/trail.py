"""What the tasks themselves recorded (`workers.demo.tasks.leave_trail`), held against what the database says."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.support.postgres import Database


@dataclass
class Execution:
    """One execution of a task: boot times of its first and last line."""

    name: str
    id: str
    start: float
    last: float
    ended: bool


def read_trail(path: Path) -> dict[str, list[Execution]]:
    """Return the executions of every task, in order of their starts."""
    found: dict[tuple[str, str], Execution] = {}
    lines = path.read_text().split("\n")[:-1]  # behind the last end of a line somebody may be writing
    for line in lines:
        name, execution, what, at = line.split()
        if what == "start":
            found[name, execution] = Execution(name, execution, float(at), float(at), ended=False)
        else:
            run = found[name, execution]
            run.last = float(at)
            run.ended = what == "end"
    by_name: dict[str, list[Execution]] = defaultdict(list)
    for run in sorted(found.values(), key=lambda each: each.start):
        by_name[run.name].append(run)
    return by_name


def assert_all_ended_once(database: Database, trail: Path, count: int) -> dict[str, list[Execution]]:
    """Assert the invariants of any number of accidents over *count* runs of `leave_trail(path, name, …)`; return the executions.

    Every run is SUCCESSFUL and nothing of it is left in the lane; the stored result is that of the last execution; no execution
    showed life after the next one of the same run had started.
    """
    rows = database.query("SELECT spec_json->'args'->>1, status, return_json#>>'{}' FROM task_runs")
    assert len(rows) == count
    states = {status for _, status, _ in rows}
    assert states == {"SUCCESSFUL"}, states
    assert database.query("SELECT count(*) FROM task_lane") == [(0,)]
    executions = read_trail(trail)
    for name, _, result in rows:
        runs = executions[name]
        assert runs[-1].ended, f"{name}: stored as successful, but its last execution did not end"
        assert result == runs[-1].id, f"{name}: the stored result is not that of the last execution"
        for earlier, later in pairwise(runs):
            assert earlier.last <= later.start, f"{name}: two executions overlap by {earlier.last - later.start:.3f} s"
    return executions
