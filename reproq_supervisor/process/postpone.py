"""Import what uses a module rarely or never without loading that module yet.

`importlib.util.LazyLoader` is no help: it loads the module as soon as a second importer asks for it.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """Stands for the module of its name, which is loaded when something is looked up in it for the first time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        """Return the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


@contextmanager
def postponed(*modules: str | StandIn) -> Iterator[None]:
    """Give stand-ins to those who import *modules* within the block; afterwards everybody gets the modules. What is loaded already stays.

    Where somebody looks into one while it is itself imported (`from module import name`), it is loaded then, and nothing is saved.
    """
    stand_ins = [each if isinstance(each, StandIn) else StandIn(each) for each in modules]
    placed = [each for each in stand_ins if sys.modules.setdefault(each.__name__, each) is each]
    try:
        yield
    finally:
        for each in placed:
            # Whoever walks through all modules, as `inspect` and `warnings` do, would load them by looking.
            if sys.modules.get(each.__name__) is each:
                del sys.modules[each.__name__]
