"""What the demo concludes from what it sees."""

import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from reproq_supervisor.cli.demo import findings, progress
from reproq_supervisor.cli.demo.ground import Library
from reproq_supervisor.cli.demo.progress import StalledError, follow
from reproq_supervisor.cli.demo.workload import LARGE, MEASURE, QUEUES, SMALL, Expected, Planned, plan_files, plan_mischief
from reproq_supervisor.cli.private.interruption import Interruption
from reproq_supervisor.core.runs import ErrorKind, RunId, RunStatus
from reproq_supervisor.store.commands import EndedCounts, QueueStats, RunView
from reproq_supervisor.store.enqueue import NewRun
from workers.demo import library

START = datetime(2026, 1, 1, tzinfo=UTC)
NESTED = """\
class A:
    def f(self):
        try:
            async def g(): ...
        except E:
            def h(): ...
x = lambda: 0
match x:
    case 1:
        class B: ...
    # the end
"""
MEASURED = {"sha256": "00", "bytes": 10, "lines": 3, "functions": 1, "classes": 1, "parsed": True}
CRASH = Planned("crashes", NewRun("t"), Expected(RunStatus.FAILED, 1, ErrorKind.WORKER_CRASHED, "code 9"))


def a_run(**changes: Any) -> RunView:
    """Return a run that measured a file at the first attempt."""
    view = RunView(
        result_id=RunId(7),
        task_path=MEASURE,
        queue_name=SMALL,
        priority=0,
        status=RunStatus.SUCCESSFUL,
        lane_state=None,
        park_reason=None,
        attempts=1,
        max_attempts=3,
        enqueued_at=START,
        due_at=START,
        started_at=START + timedelta(seconds=1),
        finished_at=START + timedelta(seconds=3),
        leased_by=None,
        cancel_requested=False,
        return_json=MEASURED,
        errors_json=[],
        last_error=None,
        logs_uri=None,
    )
    return replace(view, **changes)


def a_crash(**changes: Any) -> RunView:
    errors = [{"kind": "worker_crashed", "message": "the executor exited with code 9"}]
    return a_run(**{"status": RunStatus.FAILED, "errors_json": errors, **changes})


def surprise(planned: Planned, view: RunView, output: str = "") -> str | None:
    return findings.surprise(planned, view, lambda _: output)


def test_what_ends_as_expected_is_no_surprise() -> None:
    assert surprise(Planned("a.py", NewRun(MEASURE)), a_run()) is None
    assert surprise(CRASH, a_crash()) is None


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (a_run(), "expected FAILED, got SUCCESSFUL"),
        (a_crash(attempts=2), "expected attempts 1, got 2"),
        (a_crash(errors_json=[{"kind": "timeout", "message": "code 9"}]), "expected an error of kind worker_crashed, got timeout"),
        (a_crash(errors_json=[{"kind": "worker_crashed", "message": "code 3"}]), "expected an error with 'code 9', got 'code 3'"),
        (a_crash(errors_json=[*a_crash().errors_json] * 2), "expected an error for each failed attempt, got 2"),
    ],
)
def test_every_difference_is_a_surprise_that_names_task_and_reason(view: RunView, said: str) -> None:
    sentence = surprise(CRASH, view) or ""
    assert said in sentence
    assert sentence.startswith("task 7 (crashes): ")


def test_a_success_must_have_printed_what_it_should() -> None:
    planned = Planned("floods", NewRun("t"), Expected(output="dropped"))
    assert surprise(planned, a_run(), "5 bytes more were dropped") is None
    assert "expected output with 'dropped'" in (surprise(planned, a_run(), "short") or "")


def test_a_result_that_differs_from_the_plain_loop_is_named() -> None:
    wrong = {**MEASURED, "lines": 4}
    assert findings.differences({"a.py": MEASURED}, {"a.py": dict(MEASURED)}) == []
    (sentence,) = findings.differences({"a.py": wrong, "b.py": MEASURED}, {"a.py": MEASURED, "b.py": MEASURED})
    assert sentence.startswith("a.py: ")
    assert findings.differences({}, {"c.py": MEASURED})[0].startswith("c.py: ")


def test_totals_add_up_and_one_wrong_digest_shows() -> None:
    two = {"a.py": MEASURED, "b.py": {**MEASURED, "parsed": False}}
    found = findings.total(two)
    assert (found.files, found.bytes, found.lines, found.parsed) == (2, 20, 6, 1)
    assert findings.total({**two, "b.py": {**two["b.py"], "sha256": "01"}}).digest != found.digest


def test_the_summary_groups_failures_by_kind_and_counts_the_time_of_files_only() -> None:
    file = Planned("a.py", NewRun(MEASURE))
    late = a_crash(finished_at=START + timedelta(hours=1))
    found = findings.summarise([(file, a_run()), (CRASH, late)], lambda _: "")
    assert {kind: [each.title for each in group] for kind, group in found.misbehaved.items()} == {"worker_crashed": ["crashes"]}
    assert (found.run_s, found.waited.p50_s, found.largest) == (2.0, 1.0, ["a.py"])


def test_percentiles_are_values_that_occurred() -> None:
    found = findings.spread(value / 100 for value in range(100))
    assert (found.p50_s, found.p99_s) == (0.5, 0.99)
    assert findings.spread([]).p99_s == 0


def test_files_go_to_both_queues_larger_ones_first(tmp_path: Path) -> None:
    class Three:
        sizes = {"s": 10, "m": 1000, "l": 40_000}

        def root(self) -> Path:
            return tmp_path

        def sources(self) -> list[str]:
            return list(self.sizes)

        def measure(self, name: str) -> dict[str, Any]:
            return {"name": name}

    for name, size in Three.sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    runs = {each.title: each.run for each in plan_files(Three(), ["s", "m", "l"])}
    assert {name: run.queue_name for name, run in runs.items()} == {"s": SMALL, "m": SMALL, "l": LARGE}
    assert runs["s"].priority < runs["m"].priority < runs["l"].priority


def test_mischief_reaches_both_queues_before_any_file(tmp_path: Path) -> None:
    mischief = plan_mischief(tmp_path)
    assert {each.run.queue_name for each in mischief} == set(QUEUES)
    assert min(each.run.priority for each in mischief) > max(each.run.priority for each in plan_files(cast(Library, library), ["os.py"]))
    assert not any(each.is_file for each in mischief)


def test_following_ends_when_every_queue_has_ended_what_it_was_given() -> None:
    looks = iter([{}, _queues(1, 0), _queues(1, 2)])
    shown: list[progress.Queues] = []
    follow(lambda: next(looks), {SMALL: 1, LARGE: 2}, _Recorder(shown))
    assert shown[-1] == _queues(1, 2)


def test_following_gives_up_when_nothing_happens_and_says_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_STALLED_AFTER_S", 0.0)
    with pytest.raises(StalledError, match=r"small: 0 claimed, 5 waiting"):
        follow(lambda: {SMALL: QueueStats(ready=5)}, {SMALL: 5}, _Recorder([]))


def test_the_first_signal_stops_the_work_and_later_ones_are_counted() -> None:
    interruption = Interruption()
    before = signal.getsignal(signal.SIGTERM)
    with interruption.watched():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert interruption.count == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_must_not_be_interrupted_finishes_first() -> None:
    interruption = Interruption()
    finished = False
    with interruption.watched(), pytest.raises(KeyboardInterrupt), interruption.held():
        signal.raise_signal(signal.SIGHUP)
        finished = True
    assert finished


def test_measuring_counts_definitions_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "root", lambda: tmp_path)
    (tmp_path / "a.py").write_text(NESTED)
    (tmp_path / "bad.py").write_text("print 'two'\n")
    assert library.sources() == ["a.py", "bad.py"]
    good, bad = map(library.measure, library.sources())
    assert (good["functions"], good["classes"], good["parsed"], good["lines"]) == (3, 2, True, 11)
    assert (bad["functions"], bad["parsed"], bad["lines"]) == (0, False, 1)


class _Recorder:
    def __init__(self, shown: list[progress.Queues]) -> None:
        self._shown = shown

    def show(self, queues: progress.Queues) -> None:
        self._shown.append(queues)


def _queues(small: int, large: int) -> dict[str, QueueStats]:
    return {SMALL: QueueStats(ended=EndedCounts(successful=small)), LARGE: QueueStats(ended=EndedCounts(failed=large))}
