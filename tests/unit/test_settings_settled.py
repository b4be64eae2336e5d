"""A configuration that is being written is read when it is done; the test does the writing while the reader waits."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_supervisor.settings.problems import ConfigError, Problem
from reproq_supervisor.settings.settled import MOST_S, PAUSE_S, read_settled

WHOLE = "pools:\n  mail: {}\n  bulk: {}\n"
PREFIX = "pools:\n  mail: {}\n"


def write(path: Path, text: str, *, age_s: float = 0.0) -> None:
    path.write_text(text)
    at = time.time() - age_s
    os.utime(path, (at, at))


def reading(path: Path) -> Callable[[], str]:
    return lambda: path.read_text()


def never(seconds: float) -> None:
    raise AssertionError("it waits")


def test_a_file_that_is_older_than_a_moment_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, WHOLE, age_s=60.0)
    assert read_settled(str(path), reading(path), pause=never) == WHOLE


@pytest.mark.parametrize("first", [PREFIX, ""])
def test_a_valid_beginning_is_not_taken_for_the_whole(first: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, first)
    assert read_settled(str(path), reading(path), pause=lambda _: write(path, WHOLE, age_s=60.0)) == WHOLE


def test_a_beginning_that_is_a_mistake_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "pools: {")

    def read() -> str:
        if path.read_text() != WHOLE:
            raise ConfigError(str(path), (Problem("", "expected YAML"),))
        return WHOLE

    assert read_settled(str(path), read, pause=lambda _: write(path, WHOLE, age_s=60.0)) == WHOLE


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, PREFIX, age_s=60.0)
    readings: list[str] = []

    def read() -> str:
        readings.append(path.read_text())
        if len(readings) == 1:
            write(path, WHOLE, age_s=50.0)
        return readings[-1]

    assert read_settled(str(path), read, pause=lambda _: None) == WHOLE


def test_a_file_that_never_rests_is_refused_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    waits: list[float] = []

    def read() -> str:
        write(path, PREFIX + "#" * len(waits))
        return path.read_text()

    write(path, "")
    with pytest.raises(ConfigError, match="nobody writes to"):
        read_settled(str(path), read, pause=waits.append)
    assert sum(waits) == pytest.approx(MOST_S)
    assert set(waits) == {PAUSE_S}


def test_a_file_that_is_only_touched_all_the_time_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, WHOLE, age_s=0.0)
    assert read_settled(str(path), reading(path), pause=lambda _: None) == WHOLE


def test_a_time_in_the_future_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, WHOLE, age_s=-3600.0)
    assert read_settled(str(path), reading(path), pause=never) == WHOLE


@pytest.mark.parametrize("path", [None, "/nosuch/file", "with\0nul"])
def test_what_is_no_file_is_left_to_the_reader(path: str | None) -> None:
    assert read_settled(path, lambda: "defaults", pause=never) == "defaults"
