"""From a path to a callable: never one that is not allowed, and always with how far the path led."""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_supervisor.executor.resolve import ForbiddenTaskError, Resolver, TaskNotFoundError

MODULE = """
import functools
import subprocess
from subprocess import run as borrowed
from . import other
from .other import friend

def plain(): return "plain"
def decorated(): return "decorated"
decorated.func = subprocess.run
partial = functools.partial(plain)
foreign_partial = functools.partial(subprocess.run, [])
number = 5

class Wrapped:
    takes_context = True
    def func(self, context): return "func"
class Running:
    def run(self): return "run"
class Holder:
    class Inner:
        @staticmethod
        def task(): return "inner"
class Delegating:
    func = staticmethod(subprocess.run)

wrapped, running, delegating = Wrapped(), Running(), Delegating()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package `resolvable` with the modules `tasks` and `other`, and two that fail to be imported."""
    folder = tmp_path / "resolvable"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "tasks.py").write_text(MODULE)
    (folder / "other.py").write_text("def friend(): return 'friend'\n")
    (folder / "needs.py").write_text("import nosuchmodule_at_all\n")
    (folder / "broken.py").write_text("raise ValueError('broken')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "resolvable"
    for name in [name for name in sys.modules if name.partition(".")[0] == "resolvable"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "result"), [("plain", "plain"), ("partial", "plain"), ("running", "run"), ("Holder.Inner.task", "inner"), ("friend", "friend")]
)
def test_a_path_names_a_callable_or_an_object_that_has_one(package: str, name: str, result: str) -> None:
    target = Resolver(["resolvable."]).resolve(f"resolvable.tasks.{name}")
    assert (target.call(), target.takes_context) == (result, False)


def test_a_task_says_that_it_takes_a_context(package: str) -> None:
    target = Resolver(["resolvable."]).resolve("resolvable.tasks.wrapped")
    assert (target.call(None), target.takes_context) == ("func", True)


def test_a_function_is_run_itself_whatever_hangs_on_it(package: str) -> None:
    assert Resolver(["*"]).resolve("resolvable.tasks.decorated").call() == "decorated"


def test_a_path_outside_of_the_list_is_not_even_imported(package: str) -> None:
    with pytest.raises(ForbiddenTaskError, match=r"resolvable\.broken\.x: expected a path below one of \['resolvable\.tasks\.'\]"):
        Resolver(["resolvable.tasks."]).resolve("resolvable.broken.x")
    assert "resolvable.broken" not in sys.modules


def test_nothing_is_allowed_by_an_empty_list(package: str) -> None:
    with pytest.raises(ForbiddenTaskError):
        Resolver([]).resolve("resolvable.tasks.plain")


@pytest.mark.parametrize("name", ["borrowed", "foreign_partial", "delegating"])
def test_code_from_outside_of_the_list_is_refused_by_whatever_name(package: str, name: str) -> None:
    with pytest.raises(ForbiddenTaskError, match=r"is subprocess\.run, which is not below"):
        Resolver(["resolvable."]).resolve(f"resolvable.tasks.{name}")
    assert Resolver(["*"]).resolve(f"resolvable.tasks.{name}")


@pytest.mark.parametrize("name", ["subprocess.run", "other.friend"])
def test_a_path_never_leads_through_a_module_that_another_imported(package: str, name: str) -> None:
    with pytest.raises(ForbiddenTaskError, match="leads through the imported module"):
        Resolver(["*"]).resolve(f"resolvable.tasks.{name}")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("resolvable.tasks.nosuch", r"resolvable\.tasks has no attribute 'nosuch'"),
        ("resolvable.tasks.Holder.nosuch", r"resolvable\.tasks\.Holder has no attribute 'nosuch'"),
        ("resolvable.nosuch.task", r"resolvable has no attribute 'nosuch'"),
        ("nosuchmodule_at_all.task", "no module named 'nosuchmodule_at_all'"),
        ("resolvable.needs.task", r"importing resolvable\.needs failed: No module named 'nosuchmodule_at_all'"),
        ("resolvable.tasks.number", r"expected a callable or an object with \.func or \.run, got int"),
        ("plain", "expected a dotted path"),
        ("", "expected a dotted path"),
        ("resolvable..tasks", "expected a dotted path"),
        ("resolvable.tasks.", "expected a dotted path"),
        ("resolvable.tasks.plain()", "expected a dotted path"),
        ("../resolvable.tasks", "expected a dotted path"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_led(package: str, path: str, words: str) -> None:
    with pytest.raises(TaskNotFoundError, match=words):
        Resolver(["*"]).resolve(path)


def test_a_module_that_fails_for_its_own_reason_says_so(package: str) -> None:
    with pytest.raises(ValueError, match="broken"):
        Resolver(["*"]).resolve("resolvable.broken.task")


def test_a_path_is_resolved_once(package: str) -> None:
    resolver = Resolver(["resolvable."])
    first = resolver.resolve("resolvable.tasks.plain")
    sys.modules["resolvable.tasks"].plain = functools.partial(print)  # type: ignore[attr-defined]
    assert resolver.resolve("resolvable.tasks.plain") is first
