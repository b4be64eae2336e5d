"""Importing what hardly needs a module without loading it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from reproq_supervisor.process.postpone import StandIn, postponed

NAME = "rainy_day_reading"
USER = "leisure"


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.py").write_text("pages = 300\n")
    (tmp_path / f"{USER}.py").write_text(f"import {NAME}\ndef pages(): return {NAME}.pages\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (NAME, USER):
        monkeypatch.delitem(sys.modules, name, raising=False)


def _user() -> ModuleType:
    return __import__(USER)


def test_a_module_is_loaded_when_something_is_looked_up_in_it() -> None:
    with postponed(NAME):
        user = _user()
    assert NAME not in sys.modules
    assert user.pages() == 300
    assert type(sys.modules[NAME]) is ModuleType


def test_one_that_is_looked_into_within_the_block_is_loaded_then_and_stays() -> None:
    with postponed(NAME):
        assert _user().pages() == 300
        loaded = sys.modules[NAME]
    assert sys.modules[NAME] is loaded
    assert type(loaded) is ModuleType


def test_those_who_import_it_after_the_block_share_the_module_with_those_who_did_within() -> None:
    with postponed(NAME):
        user = _user()
    module = __import__(NAME)
    module.pages = 301
    assert user.pages() == 301


def test_what_is_loaded_already_stays() -> None:
    module = __import__(NAME)
    with postponed(NAME):
        assert __import__(NAME) is module
    assert sys.modules[NAME] is module


def test_names_that_the_module_does_not_have_are_missed_as_ever() -> None:
    with postponed(NAME):
        user = _user()
    with pytest.raises(AttributeError, match=NAME):
        _ = user.rainy_day_reading.authors


def test_a_block_that_fails_leaves_no_stand_in_behind() -> None:
    with pytest.raises(ZeroDivisionError), postponed(NAME):
        raise ZeroDivisionError
    assert NAME not in sys.modules


def test_a_stand_in_may_answer_by_itself() -> None:
    class Known(StandIn):
        authors = ("anon",)

    with postponed(Known(NAME)):
        module = __import__(NAME)
        assert module.authors == ("anon",)
        assert NAME in sys.modules and type(sys.modules[NAME]) is Known
        assert module.pages == 300
