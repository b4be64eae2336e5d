"""Importing without a module that is there."""

import sys
from pathlib import Path

import pytest

from reproq_supervisor.process.leave_out import left_out

NAME = "antigravity_free_zone"


def test_what_is_left_out_cannot_be_imported_within_the_block_and_can_be_after_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with left_out(NAME), pytest.raises(ImportError):
        __import__(NAME)
    assert __import__(NAME).__name__ == NAME
    del sys.modules[NAME]


def test_it_can_be_imported_after_a_block_that_failed() -> None:
    with pytest.raises(ZeroDivisionError), left_out(NAME):
        raise ZeroDivisionError
    assert NAME not in sys.modules


def test_what_is_loaded_already_stays() -> None:
    with left_out("json"):
        import json
    assert sys.modules["json"] is json
