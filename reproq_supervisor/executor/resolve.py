"""From a task path to a callable, and never to one that is not allowed.

The allow-list is held against the path that is run, and against the module that defines what was found: a task module that imports
`subprocess` does not make `tasks.subprocess.run` a task.
"""

import importlib
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_WRAPPINGS = 16


class ForbiddenTaskError(Exception):
    """The path, or the code behind it, is outside `app.allowed_task_modules`."""


class TaskNotFoundError(Exception):
    """The module cannot be imported, or holds no such callable."""


@dataclass(frozen=True, slots=True)
class Target:
    """A callable found for a path, and the object there that has it or is it."""

    call: Callable[..., Any]
    takes_context: bool
    task: object


class Resolver:
    """Finds tasks; each path is imported and checked once per process."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)
        self._anything = "*" in self._allowed
        self._found: dict[str, Target] = {}

    def knows(self, path: str) -> bool:
        """Answer whether `resolve` would import nothing."""
        return path in self._found

    def resolve(self, path: str) -> Target:
        """Return the callable of *path*: the object itself, or its `.func` or `.run`.

        Raises:
          ForbiddenTaskError: outside the allow-list.
          TaskNotFoundError: nothing callable there; the message says how far the path led.
        """
        target = self._found.get(path)
        if target is None:
            target = self._find(path)
            self._found[path] = target
        return target

    def check_path(self, path: str) -> None:
        """Refuse a path that is not allowed; where it leads is not looked at.

        Raises:
          ForbiddenTaskError: outside the allow-list.
        """
        if not self._is_allowed(path):
            raise ForbiddenTaskError(f"{path}: expected a path below one of {list(self._allowed)}")

    def _find(self, path: str) -> Target:
        self.check_path(path)
        task = _import(path)
        call = _callable_of(task)
        if call is None:
            raise TaskNotFoundError(f"{path}: expected a callable or an object with .func or .run, got {type(task).__name__}")
        if not self._anything:
            self._check_origin(path, call)
        return Target(call, bool(getattr(task, "takes_context", False)), task)

    def _is_allowed(self, path: str) -> bool:
        return self._anything or path.startswith(self._allowed)

    def _check_origin(self, path: str, call: object) -> None:
        # functools.partial and the like; a proxy or a mock has a .func for ever.
        for _ in range(_MOST_WRAPPINGS):
            call = getattr(call, "func", call)
        definer = getattr(call, "__module__", None)
        if not isinstance(definer, str):
            definer = type(call).__module__
        name = getattr(call, "__name__", type(call).__name__)
        if not self._is_allowed(f"{definer}.{name}"):
            raise ForbiddenTaskError(f"{path}: is {definer}.{name}, which is not below one of {list(self._allowed)}")


def _import(path: str) -> Any:
    """Import the longest module that *path* begins with, then follow attributes, but never into another module."""
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise TaskNotFoundError(f"{path!r}: expected a dotted path such as package.module.task")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Only "this very name is no module" means that a shorter one may be; a failing import inside it is its own fault.
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise TaskNotFoundError(f"{path}: importing {name} failed: {error}") from error
        for at, part in enumerate(parts[cut:], cut):
            if isinstance(found, types.ModuleType) and at > cut:
                raise ForbiddenTaskError(f"{path}: leads through the imported module {found.__name__}")
            try:
                found = getattr(found, part)
            except AttributeError as error:
                raise TaskNotFoundError(f"{path}: {'.'.join(parts[:at])} has no attribute {part!r}") from error
        return found
    raise TaskNotFoundError(f"{path}: no module named {parts[0]!r}")


def _callable_of(task: Any) -> Callable[..., Any] | None:
    for name in ("func", "run"):
        inner = getattr(task, name, None)
        if callable(inner) and not isinstance(task, types.FunctionType):
            return inner  # type: ignore[no-any-return]
    return task if callable(task) else None
