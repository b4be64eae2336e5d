"""Where a daemon keeps its files: found from its configuration and the environment alone.

The state folder is kept (the embedded database lives there); the runtime folder holds sockets and is worth nothing once the daemon has
ended. systemd names both (`StateDirectory=`, `RuntimeDirectory=`); without it they are `.reproq` and `.reproq/run` beside the file.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.process.places import MAX_SOCKET_PATH_BYTES, TEMPORARY_PREFIX

FOLDER = ".reproq"
SOCKET_NAME = "control.sock"
RECORD_NAME = "daemon.json"
# Where our unit files have their runtime folders; commands of an operator do not see the unit's environment.
SYSTEM_RUNTIME_PARENT = Path("/run")
SYSTEM_SERVICES = ("reproq-supervisor", "reproq-worker-")
# The private folders of workers, of which there may be many in one place.
WORKER_PREFIX = f"{TEMPORARY_PREFIX}worker-"
_MAX_PARENT_BYTES = 60  # leaves room for the folder and the socket
_SHORT_PARENT = Path("/tmp")  # noqa: S108 - a folder of ours inside, with its owner checked


class PlacesError(ReproqError):
    """A folder cannot be made or trusted; edit the configuration or the environment."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one daemon."""

    state_dir: Path
    runtime_dir: Path
    control_socket: Path

    @property
    def data_dir(self) -> Path:
        """The embedded database's data folder."""
        return self.state_dir / "postgres"

    @property
    def record(self) -> Path:
        """What the daemon wrote down for commands."""
        return self.runtime_dir / RECORD_NAME

    @property
    def short_dir(self) -> Path | None:
        """The private folder outside the runtime folder that holds the socket, None when there is no need of one."""
        folder = self.control_socket.parent
        return folder if folder.parent == _SHORT_PARENT and folder.name == _short_name(self.runtime_dir) else None


def find_places(config_path: str | None, control_socket: str | None, environ: Mapping[str, str]) -> Places:
    """Return the places of the daemon of *config_path*; nothing is made or looked at.

    Args:
      control_socket: what the file says; a relative path starts beside the file, so that it means the same from everywhere.
    """
    beside = folder_of(config_path)
    state_dir = _first(environ.get("STATE_DIRECTORY")) or beside / FOLDER
    runtime_dir = _first(environ.get("RUNTIME_DIRECTORY")) or beside / FOLDER / "run"
    socket = beside / control_socket if control_socket else _short_enough(runtime_dir)
    return Places(state_dir, runtime_dir, socket)


def folder_of(config_path: str | None) -> Path:
    """Return the folder that relative paths start from: the file's, or the working one."""
    return Path(config_path).resolve().parent if config_path else Path.cwd()


def records_of(config_path: str | None, environ: Mapping[str, str], *, workers: bool = True) -> list[Path]:
    """Return where the daemon of *config_path* may have left its record, the most likely first."""
    folders = [
        find_places(config_path, None, environ).runtime_dir,
        folder_of(config_path) / FOLDER / "run",
        *(folder for name in SYSTEM_SERVICES for folder in sorted(SYSTEM_RUNTIME_PARENT.glob(f"{name}*"))),
        *(private_worker_folders() if workers else ()),
    ]
    return [folder / RECORD_NAME for folder in dict.fromkeys(folders)]


def worker_parent() -> Path:
    """Return where the private folders of workers are: among temporary files, where the path of a socket is short enough."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none can be written to; who only looks for a daemon need not
        return _SHORT_PARENT
    return folder if len(os.fsencode(folder)) <= _MAX_PARENT_BYTES else _SHORT_PARENT


def private_worker_folders() -> list[Path]:
    """Return the folders of workers that are ours (or root's) and closed to others: anybody may make one of such a name."""
    found = []
    for folder in sorted(worker_parent().glob(f"{WORKER_PREFIX}*")):
        with suppress(PlacesError, FileNotFoundError):
            require_private(folder)
            found.append(folder)
    return found


def make_places(places: Places, *, passable: bool) -> None:
    """Make the folders that are missing; those that exist keep their mode.

    Args:
      passable: others may walk through (0711, not list): root's embedded database runs as another user below.

    Raises:
      PlacesError: a folder cannot be made, or a stranger was in /tmp before us.
    """
    for folder in (places.state_dir, places.runtime_dir):
        _make(folder, 0o711 if passable else 0o700)
    if len(os.fsencode(places.control_socket)) > MAX_SOCKET_PATH_BYTES:
        raise PlacesError(
            f"control.socket: expected at most {MAX_SOCKET_PATH_BYTES} bytes, got {places.control_socket}; name a shorter path"
        )
    _make(places.control_socket.parent, 0o700)
    if places.short_dir is not None:
        require_private(places.short_dir)


def require_private(folder: Path) -> None:
    """Refuse a folder in /tmp that somebody else made.

    Raises:
      PlacesError: it is a link, of another user, or open to others.
    """
    found = folder.lstat()
    trusted = (os.geteuid(), 0)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in trusted or found.st_mode & 0o077:
        raise PlacesError(
            f"{folder}: expected a folder of user {os.geteuid()} that is closed to others, "
            f"got mode {stat.filemode(found.st_mode)} of user {found.st_uid}; remove it, or set control.socket"
        )


def _make(folder: Path, mode: int) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            each.chmod(mode)
    except OSError as error:
        raise PlacesError(
            f"{folder}: expected to make this folder, got: {error.strerror}; "
            "start where it may be made, or set STATE_DIRECTORY and RUNTIME_DIRECTORY to folders of yours"
        ) from error


def _short_enough(runtime_dir: Path) -> Path:
    """Return the socket's path; the same for the same runtime folder, so that whoever looks for it needs no hint."""
    socket = runtime_dir / SOCKET_NAME
    if len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES:
        return socket
    return _SHORT_PARENT / _short_name(runtime_dir) / SOCKET_NAME


def _short_name(runtime_dir: Path) -> str:
    digest = hashlib.sha256(os.fsencode(runtime_dir)).hexdigest()
    return f"{TEMPORARY_PREFIX}{digest[:16]}"


def _first(folders: str | None) -> Path | None:
    """Return the first of systemd's colon-separated folders."""
    return Path(folders.split(":")[0]) if folders else None
