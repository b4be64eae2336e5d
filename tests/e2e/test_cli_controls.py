"""`limit` and `queue`, on a real database."""

from pathlib import Path

import pytest

from tests.support.postgres import Database
from tests.support.program import enter_empty_surroundings, run_program


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


def test_a_limit_is_set_listed_and_removed(database: Database) -> None:
    dsn = ("--dsn", database.dsn)
    assert (
        run_program("limit", "set", "--key", "queue:mail", "--rate", "0.5", "--burst", 3, *dsn).out
        == "queue:mail: 0.5 a second, 3 at once\n"
    )
    (row,) = [each for each in run_program("limit", "ls", "--json", *dsn).json if each["key"] == "queue:mail"]
    assert (row["tokens_per_second"], row["burst"], row["tokens"], row["waiting"]) == (0.5, 3, 3.0, 0)
    assert "queue:mail" in run_program("limit", "ls", *dsn).out
    assert run_program("limit", "rm", "--key", "queue:mail", *dsn).code == 0
    assert run_program("limit", "rm", "--key", "queue:mail", *dsn).code == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("--key", "mail"),
        ("--key", "queue:a", "--rate", "-1"),
        ("--key", "queue:a", "--rate", "nan"),
        ("--key", "queue:a", "--burst", "0"),
        ("--key", "task:", "--rate", "1"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(database: Database, wrong: tuple[str, ...]) -> None:
    done = run_program("limit", "set", *wrong, "--dsn", database.dsn)
    assert done.code == 2
    assert database.query("SELECT key FROM rate_limits") == [("global",)]


def test_a_queue_is_paused_and_goes_on(database: Database) -> None:
    dsn = ("--dsn", database.dsn)
    run_program("enqueue", "a.b", "--queue", "mail", *dsn)
    assert run_program("queue", "pause", "mail", "--reason", "relay down", *dsn).code == 0
    assert run_program("queue", "list", "--json", *dsn).json == [
        {"queue": "mail", "ready": 1, "running": 0, "paused": True, "reason": "relay down"}
    ]
    assert "paused relay down" in run_program("queue", "list", *dsn).out
    assert run_program("queue", "resume", "mail", *dsn).code == 0
    assert run_program("queue", "resume", "mail", *dsn).code == 1
