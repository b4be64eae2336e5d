"""Where a demo happens: the checkout whose tasks it runs, and a private folder in it that holds everything it makes."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import reproq_supervisor
from reproq_supervisor.cli.places import FOLDER
from reproq_supervisor.cli.private.ground import PrivateGround, private_folder
from reproq_supervisor.cli.private.interruption import Interruption
from reproq_supervisor.core.errors import ReproqError

_CONFIG = Path("config/demo.yaml")
_LIBRARY = Path("workers/demo/library.py")


class NoCheckoutError(ReproqError):
    """The tasks of the demo are not here."""


class Library(Protocol):
    """What the demo uses of `workers.demo.library`."""

    def root(self) -> Path: ...
    def sources(self) -> list[str]: ...
    def measure(self, name: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Ground(PrivateGround):
    """The files of one demo."""

    checkout: Path = Path()

    @property
    def scratch(self) -> Path:
        """For what tasks write."""
        return self.folder / "scratch"


def find_checkout() -> Path:
    """Return the checkout that this program belongs to.

    Raises:
      NoCheckoutError: it was installed without the demo's files.
    """
    folder = Path(reproq_supervisor.__file__).resolve().parents[1]
    missing = [str(path) for path in (_CONFIG, _LIBRARY) if not (folder / path).is_file()]
    if missing:
        raise NoCheckoutError(
            f"demo: expected {' and '.join(missing)} in {folder}, found none; a demo runs from a checkout, which an installed package is "
            "not: clone the repository and type: make demo"
        )
    return folder


def load_library(checkout: Path) -> Library:
    """Import the module with the demo's tasks, from where the executors import it."""
    sys.path.insert(0, str(checkout))
    return cast(Library, importlib.import_module("workers.demo.library"))


@contextmanager
def private_ground(checkout: Path, interruption: Interruption, *, keep: bool) -> Iterator[Ground]:
    """Make a folder that no other demo uses, and remove it at the end unless it is to be kept."""
    with private_folder(checkout / FOLDER, "demo", interruption, keep=keep) as folder:
        variables = {"REPROQ_DEMO_APP": str(checkout), "REPROQ_DEMO_LOGS": str(folder / "logs")}
        ground = Ground(folder, folder / _CONFIG.name, variables, checkout)
        shutil.copyfile(checkout / _CONFIG, ground.config)
        ground.scratch.mkdir()
        yield ground
