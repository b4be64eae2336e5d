"""The folder that holds everything of a private daemon."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reproq_supervisor.cli.places import Places, find_places
from reproq_supervisor.cli.private.interruption import Interruption
from reproq_supervisor.core.errors import ReproqError


@dataclass(frozen=True)
class PrivateGround:
    """The files of one private daemon.

    Attributes:
      config: its configuration, so that the daemon keeps everything beside it.
      variables: what that reads from the environment.
    """

    folder: Path
    config: Path
    variables: Mapping[str, str] = field(default_factory=dict)

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


@contextmanager
def private_folder(parent: Path, name: str, interruption: Interruption, *, keep: bool) -> Iterator[Path]:
    """Make a folder in *parent* that nobody else uses, and remove it at the end unless it is to be kept."""
    try:
        parent.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    except OSError as error:
        raise ReproqError(f"{parent}: expected to make a folder for the {name}, got: {error.strerror}; use a folder of your own") from error
    try:
        folder.chmod(0o711)  # root's PostgreSQL runs as another user below
        yield folder
    finally:
        if not keep:
            with interruption.held():
                shutil.rmtree(folder)
