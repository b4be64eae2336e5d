"""The daemon as commands find it: what it wrote down when it started, and whether it answers."""

import json
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from reproq_supervisor.cli.options import Options
from reproq_supervisor.cli.places import find_places, records_of
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.problems import ConfigError

_ANSWER_TIMEOUT_S = 2.0


class NoDaemonError(ReproqError):
    """There is no daemon to talk to."""

    exit_code = 69


@dataclass(frozen=True, slots=True)
class DaemonRecord:
    """What `run` writes down for the other commands. A record outlives its daemon: only an answer proves that it lives.

    Attributes:
      pid: of the supervisor.
      config_path: absolute; None when it runs without a file.
      dsn: of the database that it works with, password included: only its user may read the file.
      embedded: the database is the daemon's own, and gone with it.
    """

    pid: int
    config_path: str | None
    control_socket: str
    dsn: str | None
    embedded: bool = False

    def write(self, path: Path) -> None:
        """Replace the record at *path* in one go, with mode 0600."""
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        Path(name).replace(path)

    @property
    def answers(self) -> bool:
        """Whether somebody accepts connections on its control socket."""
        return is_answering(self.control_socket)


def read_record(path: Path) -> DaemonRecord | None:
    """Return the record at *path*; None when there is none that can be read."""
    try:
        return DaemonRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def find_record(config_path: str | None, environ: Mapping[str, str], *, workers: bool = True) -> DaemonRecord | None:
    """Return the record of the daemon that was started with *config_path*: of one that answers, before those of the dead.

    Args:
      workers: also look for workers, of which any number may run beside each other and beside a daemon.
    """
    wanted = absolute(config_path)
    found = [
        record
        for place in records_of(config_path, environ, workers=workers)
        if (record := read_record(place)) and record.config_path == wanted
    ]
    return next((record for record in found if record.answers), found[0] if found else None)


def find_control_socket(options: Options, environ: Mapping[str, str]) -> str:
    """Return where the daemon listens.

    What the daemon itself wrote down comes first: the file may have been edited since, or be broken, just when people ask for `status`.

    Raises:
      NoDaemonError: the named file is none, so that no daemon can have been started with it.
    """
    record = find_record(options.config_path, environ)
    if record is not None and record.answers:
        return record.control_socket
    if options.config is not None and not Path(options.config).is_file():
        raise NoDaemonError(f"{options.config}: expected the configuration file of a daemon, found none; name it with -c or REPROQ_CONFIG")
    try:
        named = options.load().settings.control.socket
    except ConfigError:
        named = None
    return str(find_places(options.config_path, named, environ).control_socket)


def is_answering(control_socket: str) -> bool:
    """Answer whether a process listens at *control_socket*, be it as busy or frozen that it does not accept."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_ANSWER_TIMEOUT_S)
        try:
            client.connect(control_socket)
        except (TimeoutError, BlockingIOError):
            return True  # its queue is full
        except OSError:
            return False
        return True


def absolute(config_path: str | None) -> str | None:
    """Return the name under which a configuration is known, wherever a command was typed."""
    return os.path.realpath(config_path) if config_path else None


def how_to_start(options: Options) -> str:
    """Return the command that starts the daemon of these options."""
    from reproq_supervisor.settings.contract.load import is_worker_file

    path = options.config_path
    if path is None:
        return "reproq-supervisor run"
    return f"reproq-supervisor {'worker' if is_worker_file(path) else 'run'} -c {path}"
