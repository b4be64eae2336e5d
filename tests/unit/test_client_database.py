"""Which database a client takes."""

from pathlib import Path

import pytest

from reproq_supervisor.cli.daemon.record import NoDaemonError
from reproq_supervisor.client.database import find_database
from tests.support.program import enter_empty_surroundings


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_empty_surroundings(tmp_path, monkeypatch)


def test_what_is_said_counts_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "supervisor.yaml").write_text("database: postgresql://file/x\n")
    assert find_database(None) == "postgresql://file/x"
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment/x")
    assert find_database(None) == "postgresql://environment/x"
    assert find_database("postgresql://argument/x") == "postgresql://argument/x"


def test_an_embedded_database_needs_its_daemon() -> None:
    with pytest.raises(NoDaemonError, match="reproq-supervisor run"):
        find_database(None)
