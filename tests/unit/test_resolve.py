"""From a task path to a callable that is allowed."""

import functools
import sys
import types
from collections.abc import Iterator

import pytest

from reproq_supervisor.executor.resolve import ForbiddenTaskError, Resolver, TaskNotFoundError


class Group:
    @staticmethod
    def static(value: int) -> int:
        return value

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__


class Framework:
    """Task object of another framework."""

    takes_context = True

    def __init__(self, function: object) -> None:
        self.func = function


class Endless:
    """Has every attribute, as mocks and proxies do."""

    def __getattr__(self, name: str) -> object:
        return Endless()

    def __call__(self) -> str:
        return "called"


def _plain(a: int = 1) -> int:
    return a


@pytest.fixture
def app() -> Iterator[types.ModuleType]:
    """A package `shop` with a module `shop.tasks`, and a neighbour `shopping`."""
    package, tasks, neighbour = types.ModuleType("shop"), types.ModuleType("shop.tasks"), types.ModuleType("shopping")
    package.__path__ = []
    package.tasks = tasks  # type: ignore[attr-defined]
    names = {"shop": package, "shop.tasks": tasks, "shopping": neighbour}
    sys.modules.update(names)
    exec("def pay(x=1):\n    return x\nclass Later:\n    def run(self):\n        return 'ran'\nlater = Later()\nnumber = 5\n", vars(tasks))
    neighbour.steal = _plain  # type: ignore[attr-defined]
    yield tasks
    for name in names:
        sys.modules.pop(name)


def resolver(*allowed: str) -> Resolver:
    return Resolver(allowed or ("shop.",))


def test_a_function_is_called_itself(app: types.ModuleType) -> None:
    assert resolver().resolve("shop.tasks.pay").call(3) == 3


def test_an_object_is_called_through_its_run(app: types.ModuleType) -> None:
    assert resolver().resolve("shop.tasks.later").call() == "ran"


def test_an_object_that_wraps_a_function_of_ours_is_called_through_its_func(app: types.ModuleType) -> None:
    app.task = Framework(app.pay)  # type: ignore[attr-defined]
    target = resolver().resolve("shop.tasks.task")
    assert (target.call(4), target.takes_context) == (4, True)


@pytest.mark.parametrize(("name", "result"), [("Group.static", 2), ("Group.of_class", "Group")])
def test_methods_of_a_class_are_found(app: types.ModuleType, name: str, result: object) -> None:
    app.Group = Group  # type: ignore[attr-defined]
    call = resolver("shop.", f"{__name__}.").resolve(f"shop.tasks.{name}").call
    assert call(*([2] if "static" in name else [])) == result


@pytest.mark.parametrize("path", ["os.system", "shopping.steal", "shop", "builtins.eval", "shop_tasks.pay", "SHOP.tasks.pay", ""])
def test_a_path_outside_the_list_is_forbidden_before_anything_is_imported(app: types.ModuleType, path: str) -> None:
    with pytest.raises(ForbiddenTaskError, match="expected a path below"):
        resolver().resolve(path)


def test_what_a_task_module_imported_is_no_task_of_it(app: types.ModuleType) -> None:
    app.system = __import__("os").system  # type: ignore[attr-defined]
    app.steal = sys.modules["shopping"].steal  # type: ignore[attr-defined]
    app.partial = functools.partial(functools.partial(__import__("os").system), "true")  # type: ignore[attr-defined]
    app.wrapped = Framework(__import__("os").system)  # type: ignore[attr-defined]
    for name in ("system", "steal", "partial", "wrapped"):
        with pytest.raises(ForbiddenTaskError, match="not below one of"):
            resolver().resolve(f"shop.tasks.{name}")


def test_a_path_through_an_imported_module_is_forbidden(app: types.ModuleType) -> None:
    app.os = __import__("os")  # type: ignore[attr-defined]
    with pytest.raises(ForbiddenTaskError, match="leads through the imported module os"):
        resolver().resolve("shop.tasks.os.system")


def test_an_object_with_every_attribute_does_not_keep_the_resolver_for_ever(app: types.ModuleType) -> None:
    app.endless = Endless()  # type: ignore[attr-defined]
    with pytest.raises(ForbiddenTaskError):
        resolver().resolve("shop.tasks.endless")


def test_everything_may_be_allowed_for_development(app: types.ModuleType) -> None:
    app.os = __import__("os")  # type: ignore[attr-defined]
    assert resolver("*").resolve("shopping.steal").call() == 1
    assert resolver("*").resolve("os.getpid").call() > 0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("shop.tasks.gone", "shop.tasks has no attribute 'gone'"),
        ("shop.tasks.pay.more", "shop.tasks.pay has no attribute 'more'"),
        ("shop.gone.pay", "shop has no attribute 'gone'"),
        ("shop.tasks.number", "expected a callable or an object with .func or .run, got int"),
        ("shop.", "expected a dotted path"),
        ("shop..pay", "expected a dotted path"),
        ("shop.tasks.pay()", "expected a dotted path"),
        ("shop.tasks pay", "expected a dotted path"),
    ],
)
def test_what_is_not_there_is_not_found_and_the_message_says_how_far_the_path_led(app: types.ModuleType, path: str, words: str) -> None:
    with pytest.raises(TaskNotFoundError) as caught:
        resolver().resolve(path)
    assert words in str(caught.value)


def test_a_module_that_fails_to_import_another_is_not_taken_for_missing(app: types.ModuleType, tmp_path: object) -> None:
    path = __import__("pathlib").Path(str(tmp_path))
    (path / "broken_shop.py").write_text("import a_module_that_nobody_has\n")
    sys.path.insert(0, str(path))
    try:
        with pytest.raises(TaskNotFoundError, match="a_module_that_nobody_has"):
            resolver("broken_shop.").resolve("broken_shop.pay")
    finally:
        sys.path.remove(str(path))


def test_a_path_is_looked_up_once(app: types.ModuleType) -> None:
    one = resolver()
    found = one.resolve("shop.tasks.pay")
    del app.pay  # type: ignore[attr-defined]
    assert one.resolve("shop.tasks.pay") is found


def test_what_was_not_found_is_looked_up_again(app: types.ModuleType) -> None:
    one = resolver()
    with pytest.raises(TaskNotFoundError):
        one.resolve("shop.tasks.new")
    app.new = app.pay  # type: ignore[attr-defined]
    assert one.resolve("shop.tasks.new").call() == 1
