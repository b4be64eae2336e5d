"""The tasks of a project: what the modules `tasks` of its applications have.

These are what may run, what a nursery imports once, and whose queues are served.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType

from django.apps import apps
from django.core.management.base import CommandError

from reproq_django.framework import Task

_NAME = "tasks"


def task_modules() -> list[ModuleType]:
    """Import and return the module `tasks` of every installed application, and what is below it where it is a package.

    Raises:
      CommandError: one cannot be imported.
    """
    found = []
    for application in apps.get_app_configs():
        name = f"{application.name}.{_NAME}"
        if importlib.util.find_spec(name) is not None:
            module = _import(name)
            found += [module, *_below(module)]
    return found


def find_tasks(modules: Iterable[ModuleType]) -> dict[str, Task]:
    """Return the tasks that these modules define or name, by their path."""
    return {value.module_path: value for module in modules for value in vars(module).values() if isinstance(value, Task)}


def allowed_prefixes(tasks: Iterable[str]) -> list[str]:
    """Return the shortest list of prefixes that lets the tasks of these paths run: those of their modules."""
    return sorted({path.rpartition(".")[0] + "." for path in tasks})


def _below(package: ModuleType) -> Iterator[ModuleType]:
    for each in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{package.__name__}."):
        yield _import(each.name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # boundary: importing runs the project's code
        raise CommandError(f"{name}: expected a module with tasks, importing it failed with {type(error).__name__}: {error}") from error
