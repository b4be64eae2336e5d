"""What the demo found out: pure functions from what was planned and what became of it to what a report says."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reproq_supervisor.cli.demo.workload import Planned
from reproq_supervisor.core.runs import RunStatus
from reproq_supervisor.store.commands import RunView

Measure = Mapping[str, Any]
Outcome = tuple[Planned, RunView]

_COUNTED = ("bytes", "lines", "functions", "classes", "parsed")
_LARGEST = 5


@dataclass(frozen=True, slots=True)
class Totals:
    """What all files are together. *digest*: sha256 of all names with their digests, so that one wrong byte anywhere shows."""

    files: int
    bytes: int
    lines: int
    functions: int
    classes: int
    parsed: int
    digest: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How one task that misbehaves ended. *kind* is None when it succeeded in the end."""

    title: str
    task_path: str
    status: str
    attempts: int
    kind: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds: the middle, and what only one of a hundred exceeds."""

    p50_s: float
    p99_s: float


@dataclass(slots=True)
class Findings:
    """The whole report.

    Attributes:
      measures: what the tasks found, by file.
      surprises: what is not as expected, in sentences; empty is the point of the demo.
      run_s: from the start of the first file's task to the end of the last one.
      waited: from enqueue to start, with all tasks enqueued at once.
      idle: the same for tasks enqueued one by one while nothing else ran.
      plain_s: how long the plain loop took.
    """

    measures: dict[str, Measure]
    misbehaved: dict[str, list[Ended]]
    run_s: float
    waited: Spread
    idle: Spread | None = None
    plain_s: float = 0.0
    surprises: list[str] = field(default_factory=list)

    @property
    def totals(self) -> Totals:
        """What all files are together."""
        return total(self.measures)

    @property
    def largest(self) -> list[str]:
        """The names of the files with the most lines."""
        return sorted(self.measures, key=lambda name: (-self.measures[name]["lines"], name))[:_LARGEST]

    @property
    def files_per_s(self) -> float:
        """Tasks per second, of those that measure files."""
        return len(self.measures) / max(self.run_s, 1e-6)


def summarise(outcomes: Sequence[Outcome], read_output: Callable[[RunView], str]) -> Findings:
    """Return what came out of the tasks, each held against what was expected of it."""
    files = {planned.title: view for planned, view in outcomes if planned.is_file}
    measures = {name: view.return_json for name, view in files.items() if view.status == RunStatus.SUCCESSFUL}
    return Findings(
        measures=measures,
        misbehaved=_by_kind(outcomes),
        run_s=_span_s(files.values()),
        waited=spread([waited_s(view) for view in files.values()]),
        surprises=[sentence for planned, view in outcomes if (sentence := surprise(planned, view, read_output))],
    )


def total(measures: Mapping[str, Measure]) -> Totals:
    """Add up what is known of each file, by name."""
    sums: Counter[str] = Counter()
    digest = hashlib.sha256()
    for name, measure in sorted(measures.items()):
        sums.update({key: int(measure[key]) for key in _COUNTED})
        digest.update(f"{name} {measure['sha256']}\n".encode())
    return Totals(files=len(measures), digest=digest.hexdigest(), **{key: sums[key] for key in _COUNTED})


def surprise(planned: Planned, view: RunView, read_output: Callable[[RunView], str]) -> str | None:
    """Say how a task differs from what was expected of it; None when it does not."""
    expected, error = planned.expected, _last_error(view)
    kind, message = error.get("kind"), str(error.get("message", ""))
    found: str | None = None
    if view.status != expected.status:
        found = f"{expected.status}, got {view.status}"
    elif view.attempts != expected.attempts:
        found = f"attempts {expected.attempts}, got {view.attempts}"
    elif expected.kind is not None and kind != expected.kind:
        found = f"an error of kind {expected.kind}, got {kind}"
    elif expected.message not in message:
        found = f"an error with {expected.message!r}, got {message!r}"
    elif expected.output and expected.output not in read_output(view):
        found = f"output with {expected.output!r}, got none such"
    elif len(view.errors_json) != expected.attempts - (expected.status is RunStatus.SUCCESSFUL):
        found = f"an error for each failed attempt, got {len(view.errors_json)}"
    why = f" ({kind}: {message})" if found and kind else ""
    return f"task {view.result_id} ({planned.title}): expected {found}{why}" if found else None


def differences(measured: Mapping[str, Measure], plain: Mapping[str, Measure]) -> list[str]:
    """Say where the results of the tasks differ from those of the plain loop."""
    return [
        f"{name}: expected what the plain loop found, {plain.get(name)}, got {measured.get(name)}"
        for name in sorted(measured.keys() | plain.keys())
        if measured.get(name) != plain.get(name)
    ]


def spread(values_s: Iterable[float]) -> Spread:
    """Return median and 99th percentile (nearest rank); zeros of nothing."""
    ordered = sorted(values_s) or [0.0]
    return Spread(*(ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99)))


def waited_s(view: RunView) -> float:
    """Return the seconds from enqueue to the start of the last attempt, by the database's clock."""
    return (view.started_at - view.enqueued_at).total_seconds() if view.started_at else 0.0


def _span_s(views: Iterable[RunView]) -> float:
    begun = [view.started_at for view in views if view.started_at and view.finished_at]
    done = [view.finished_at for view in views if view.started_at and view.finished_at]
    return (max(done) - min(begun)).total_seconds() if begun and done else 0.0


def _by_kind(outcomes: Iterable[Outcome]) -> dict[str, list[Ended]]:
    """Group what misbehaved, and files that failed, by the kind of the last error; what worked in the end comes first."""
    groups: defaultdict[str, list[Ended]] = defaultdict(list)
    for planned, view in outcomes:
        if planned.is_file and view.status == RunStatus.SUCCESSFUL:
            continue
        error = _last_error(view)
        kind = str(error.get("kind")) if view.status != RunStatus.SUCCESSFUL else None
        ended = Ended(planned.title, view.task_path, view.status, view.attempts, kind, str(error.get("message", "")))
        groups[kind or "survived"].append(ended)
    return dict(sorted(groups.items(), key=lambda group: (group[0] != "survived", group[0])))


def _last_error(view: RunView) -> Mapping[str, Any]:
    return view.errors_json[-1] if view.errors_json else {}
