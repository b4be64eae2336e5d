"""The files with what tasks printed: only theirs, by their own names."""

from pathlib import Path

import pytest

from reproq_supervisor.process.task_logs import log_name, remove_logs


def test_every_attempt_of_a_run_goes(tmp_path: Path) -> None:
    for attempt in (1, 3, 4):
        (tmp_path / log_name(7, attempt)).touch()
    (tmp_path / log_name(77, 1)).touch()
    assert remove_logs(7, str(tmp_path / log_name(7, 3))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [log_name(7, 4), log_name(77, 1)]


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    (tmp_path / log_name(7, 1)).touch()
    assert remove_logs(7, f"file://{tmp_path / log_name(7, 1)}") == 1


@pytest.mark.parametrize("uri", [None, "", "https://logs.example/task-7-attempt-1.log", "task-7-attempt-1.log", "/etc/passwd"])
def test_what_is_no_log_of_this_host_is_left(uri: str | None) -> None:
    assert remove_logs(7, uri) == 0


def test_a_row_cannot_have_the_log_of_another_run_deleted(tmp_path: Path) -> None:
    other = tmp_path / log_name(8, 1)
    other.touch()
    assert remove_logs(7, str(other)) == 0
    assert remove_logs(7, f"{tmp_path}/x/../{other.name}") == 0
    assert other.exists()
