"""Where a demo happens: the checkout whose tasks it runs, and a private folder in it that holds everything it makes."""

import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import reproq_supervisor
from reproq_supervisor.cli.demo.interruption import Interruption
from reproq_supervisor.cli.places import FOLDER, Places, find_places
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


@dataclass(frozen=True, slots=True)
class Ground:
    """The files of one demo."""

    checkout: Path
    folder: Path

    @property
    def config(self) -> Path:
        """Its own copy of the configuration, so that the daemon keeps everything beside it."""
        return self.folder / _CONFIG.name

    @property
    def places(self) -> Places:
        """Where the daemon keeps its files."""
        return find_places(str(self.config), None, {})

    @property
    def daemon_log(self) -> Path:
        """What the daemon says."""
        return self.folder / "daemon.log"

    @property
    def logs_dir(self) -> Path:
        """What the tasks print."""
        return self.folder / "logs"

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
    parent = checkout / FOLDER
    try:
        parent.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="demo-", dir=parent))
    except OSError as error:
        raise ReproqError(f"{parent}: expected to make a folder for the demo, got: {error.strerror}; use a checkout of your own") from error
    try:
        folder.chmod(0o711)  # root's PostgreSQL runs as another user below
        ground = Ground(checkout, folder)
        shutil.copyfile(checkout / _CONFIG, ground.config)
        ground.scratch.mkdir()
        yield ground
    finally:
        if not keep:
            with interruption.held():
                shutil.rmtree(folder)
