"""`logs` with the words of the older package's command."""

from pathlib import Path

import pytest

from tests.support.postgres import Database
from tests.support.program import Done, enter_empty_surroundings, run_program
from tests.support.tasks import enqueue, finish


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


@pytest.fixture
def printed(database: Database, tmp_path: Path) -> tuple[int, Path]:
    """A task with captured output, and the file."""
    (run,) = enqueue(database)
    finish(database, run)
    path = tmp_path / "task.log"
    path.write_bytes("one\ntwo\nthré\n".encode())
    database.query("UPDATE task_runs SET logs_uri = %s, rev = rev + 1 WHERE result_id = %s", str(path), run)
    return run, path


def logs(database: Database, *arguments: object) -> Done:
    return run_program("logs", *arguments, "--dsn", database.dsn)


def test_the_id_can_be_an_option(database: Database, printed: tuple[int, Path]) -> None:
    assert logs(database, "--id", printed[0]).out == logs(database, printed[0]).out
    assert logs(database).code == 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (("--max-bytes", 9), "wo\nthré\n"),
        (("--max-bytes", 2), "�\n"),
        (("--max-bytes", 9, "--tail", 1), "thré\n"),
        (("--max-bytes", 9999), "one\ntwo\nthré\n"),
    ],
)
def test_only_the_last_bytes_are_read(database: Database, printed: tuple[int, Path], given: tuple[object, ...], shown: str) -> None:
    assert logs(database, printed[0], *given).out == shown


def test_the_path_is_told_also_of_a_file_that_is_gone(database: Database, printed: tuple[int, Path]) -> None:
    run, path = printed
    path.unlink()
    assert logs(database, run, "--show-path").out == f"{path}\n"
    assert logs(database, run, "--show-path", "--json").json["path"] == str(path)
