"""Reads the configuration: defaults, then the file, then the environment, then flags; all problems at once.

Of the environment, `${VAR}` fills in the file where it stands, and DATABASE_URL replaces the file's `database`, as does systemd's
credential `dsn`, which is weaker than DATABASE_URL.

`python -P -m reproq_supervisor.settings.load` is the one-shot child that does this for a reload, so that the supervisor's loop neither
waits for a disk nor imports a parser: one `start` frame in at descriptor 3, one `settings` or `problems` frame out.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.settings.credential import read_dsn
from reproq_supervisor.settings.document import Document, parse_document
from reproq_supervisor.settings.layers import Layers
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.problems import ConfigError
from reproq_supervisor.settings.release import release_of
from reproq_supervisor.settings.resolve import resolve
from reproq_supervisor.settings.settled import read_settled
from reproq_supervisor.settings.source import read_source
from reproq_supervisor.settings.validate import validate

NO_FILE = "(no configuration file)"
_SUPERVISOR_GONE = 75  # the channel is also the lifeline


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, and the layers that say where each value came from."""

    settings: Settings
    layers: Layers


def load(config_path: str | None, *, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """Load the configuration of the daemon.

    Args:
      config_path: the file, or None for defaults only.
      overrides: values of flags by dotted key; they win over everything.
      environ: for `${VAR}`, DATABASE_URL and CREDENTIALS_DIRECTORY; None means this process's.

    Raises:
      ConfigError: the file cannot be read or something in it is wrong; it holds every problem.
    """
    environ = os.environ if environ is None else environ
    document = Document() if config_path is None else parse_document(read_source(config_path), environ)
    layers = Layers.stack(config_path or NO_FILE, document, environ, overrides or {}, credential=read_dsn(environ))
    return Loaded(validate(layers), layers)


def answer(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a `start` message: resolved settings with the runtime block as given and the release, or every problem."""
    runtime = start.get("runtime") or {}
    contract = runtime.get("contract")
    path = start.get("config_path") if contract is None else contract["path"]
    try:
        loaded = read_settled(path, lambda: _load_again(start, contract))
    except ConfigError as error:
        return {"type": "problems", "source": error.source, "problems": [problem.as_message() for problem in error.problems]}
    settings = resolve(loaded, runtime)
    return {"type": "settings", "settings": settings, "release": release_of(settings["app"])}


def _load_again(start: Mapping[str, Any], contract: Mapping[str, Any] | None) -> Settings:
    if contract is not None:  # it was started as `worker`
        from reproq_supervisor.settings.contract.load import load_worker

        environ = start.get("environ")
        return load_worker(contract["path"], contract["flags"], os.environ if environ is None else environ).settings
    return load(start.get("config_path"), overrides=start.get("overrides"), environ=start.get("environ")).settings


def main(channel_fd: int = 3) -> int:
    """Answer one `start` frame; return the exit code: 0 for either answer, 75 when the supervisor went away."""
    channel = socket.socket(fileno=channel_fd)
    reader = FrameReader()
    while data := channel.recv(65536):
        for message in reader.feed_messages(data):
            if message.get("type") == "start":
                answered = threading.Event()
                threading.Thread(target=_leave_with, args=(channel, answered), daemon=True).start()
                reply = encode_message(answer(message))
                answered.set()
                try:
                    channel.sendall(reply)
                except BrokenPipeError:
                    return _SUPERVISOR_GONE
                return 0
    return _SUPERVISOR_GONE


def _leave_with(channel: socket.socket, answered: threading.Event) -> None:
    """End this process when the supervisor ends: a file made to be slow must not keep it for seconds."""
    with contextlib.suppress(ConnectionError):
        while channel.recv(4096):
            pass
    if not answered.is_set():
        os._exit(_SUPERVISOR_GONE)


if __name__ == "__main__":
    sys.exit(main())
