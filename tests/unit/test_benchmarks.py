"""What the benchmark computes: starts noted by tasks, rates of them, ratios between contenders, and who takes part."""

import argparse
import json
import time
from pathlib import Path

import psycopg
import pytest

from benchmarks.contenders import contender, tasks
from benchmarks.contenders.contender import NotInstalledError, Work, load_contenders, require_program
from benchmarks.contenders.meter import VARIABLE, new_meter
from benchmarks.measures.drain import Load, rate_of
from benchmarks.peers import Contest
from benchmarks.report import medians, ratios, remember, table
from benchmarks.stage import at_least_one


@pytest.fixture(autouse=True)
def nothing_is_open() -> None:
    tasks._notes.clear()


def test_a_task_notes_its_start_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with new_meter(3) as meter:
        monkeypatch.setenv(VARIABLE, meter.environment[VARIABLE])
        before = time.monotonic()
        tasks.probe(1)
        starts = meter.starts()
        assert (starts[0], starts[2]) == (0.0, 0.0)
        assert before <= starts[1] <= time.monotonic()
        assert meter.seen() == 1
        assert meter.wait(1, timeout=0)
        assert meter.wait_one(1, timeout=0) == starts[1]
        assert not meter.wait(2, timeout=0)


def test_a_task_that_does_not_start_is_named() -> None:
    with new_meter(3) as meter, pytest.raises(TimeoutError, match="task 2: expected it to start within 0 s"):
        meter.wait_one(2, timeout=0)


def test_a_rate_leaves_out_the_first_tenth() -> None:
    slow_at_first = [0.0, *(100 + n / 10 for n in range(99))]
    assert rate_of(slow_at_first) == pytest.approx(10)


def test_works_have_only_the_arguments_that_they_need() -> None:
    assert Work(7).arguments() == {"n": 7}
    assert Load(2, nap_ms=10, payload_bytes=3).works()[1].arguments() == {"n": 1, "nap_ms": 10, "payload": "xxx"}


def test_ratios_are_taken_round_by_round() -> None:
    rounds = {"product": [{"rate": 20.0}, {"rate": 40.0}, {"rate": 30.0}], "other": [{"rate": 10.0}, {"rate": 10.0}, {"rate": 30.0}]}
    assert ratios(rounds, "rate", "product") == {"other": {"median": 2.0, "min": 1.0, "max": 4.0}}
    assert medians(rounds) == {"product": {"rate": 30.0}, "other": {"rate": 10.0}}


def test_a_contender_without_a_figure_has_a_dash() -> None:
    told = table("Title", {"one": [{"rate": 1234.5, "wal": 3.0}], "two": [{"rate": 0.5}]}, {"rate": "tasks/s", "wal": "WAL", "none": "no"})
    assert [line.split() for line in told.splitlines()] == [["Title"], ["tasks/s", "WAL"], ["one", "1,234", "3"], ["two", "0.5", "-"]]


def test_the_history_grows_by_a_line(tmp_path: Path) -> None:
    for n in range(2):
        remember({"n": n}, tmp_path / "history")
    assert [json.loads(line)["n"] for line in (tmp_path / "history").read_text().splitlines()] == [0, 1]


def test_who_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contender, "MODULES", ("product", "nobody"))
    found, missing = load_contenders()
    assert [one.name for one in found] == ["product"]
    assert missing == {"nobody": "benchmarks.contenders.nobody is not installed"}
    assert [one.name for one in load_contenders(["product-async"])[0]] == ["product-async"]
    with pytest.raises(LookupError, match=r"expected one of product, .*, nobody, got somebody"):
        load_contenders(["somebody"])
    with pytest.raises(NotInstalledError, match="no-such-program is not on the path"):
        require_program("no-such-program")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "\u00b2"])
def test_no_rounds_are_refused(text: str) -> None:
    assert at_least_one("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number from 1 on"):
        at_least_one(text)


def test_who_loses_its_server_is_named_and_the_others_go_on() -> None:
    floor, one, two = load_contenders(["floor", "product", "product-shard"])[0]
    contest = Contest()

    def lost() -> list[dict[str, float]]:
        raise psycopg.OperationalError("the connection is closed\nand more")

    for _ in range(2):
        contest.book("drain", one, lost)
        contest.book("drain", two, lambda: [{"tasks_per_s": 1.0}])
    assert not floor.enqueues
    assert contest.failed == {"product: drain": "the connection is closed"}
    assert contest.rounds == {"drain": {"product-shard": [{"tasks_per_s": 1.0}] * 2}}
