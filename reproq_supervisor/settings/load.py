"""Reads the configuration: defaults, then the file, then the environment, then flags; all problems at once.

Of the environment, `${VAR}` fills in the file where it stands, and DATABASE_URL replaces the file's `database`.

`python -P -m reproq_supervisor.settings.load` is the one-shot child that does this for a reload, so that the supervisor's loop neither
waits for a disk nor imports a parser: one `start` frame in at descriptor 3, one `settings` or `problems` frame out.
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from reproq_supervisor.core.frames import FrameReader, encode_message
from reproq_supervisor.settings.checks import check_together
from reproq_supervisor.settings.complaints import complain, place_problem
from reproq_supervisor.settings.document import Document, Path, parse_document
from reproq_supervisor.settings.layers import Layers
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.problems import ConfigError, Problem
from reproq_supervisor.settings.resolve import resolve
from reproq_supervisor.settings.source import read_source

NO_FILE = "(no configuration file)"


_MAX_ROUNDS = 5
_MAX_PROBLEMS = 200


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
      environ: for `${VAR}` and DATABASE_URL; None means this process's.

    Raises:
      ConfigError: the file cannot be read or something in it is wrong; it holds every problem.
    """
    environ = os.environ if environ is None else environ
    document = Document() if config_path is None else parse_document(read_source(config_path), environ)
    layers = Layers.stack(config_path or NO_FILE, document, environ, overrides or {})
    return Loaded(_validate(layers), layers)


def _validate(layers: Layers) -> Settings:
    """Validate value by value, then, with what is wrong left out, the rules that join values.

    Leaving out is what lets both kinds of problem be told in one go. A rule that looked at a value which is wrong by itself says
    nothing, since it saw a default instead.

    Raises:
      ConfigError: with every problem, in the order of the file.
    """
    problems = list(layers.document.problems)
    broken = set(layers.document.broken)
    data = layers.merge()
    settings: Settings | None = None
    for attempt in range(_MAX_ROUNDS):
        try:
            settings = Settings.model_validate(data)
            break
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path, problem = complain(detail, layers)
                if attempt == 0:  # later complaints are about what the leaving out did
                    problems.append(problem)
                broken.add(path)
            data = _without(data, {_to_key(path) for path in broken})
    problems += [
        place_problem(finding.path, finding.message, finding.hint, layers, near=finding.uses)
        for finding in (check_together(settings) if settings else ())
        if not any(_overlap(used, wrong) for used in finding.uses for wrong in broken)
    ]
    if problems or settings is None:
        in_order = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line or 0, problem.column or 0))
        if more := in_order[_MAX_PROBLEMS:]:
            in_order[_MAX_PROBLEMS:] = [Problem("", f"and {len(more)} more problems like these")]
        raise ConfigError(layers.source, tuple(in_order))
    return settings


def _without(data: dict[str, Any], broken: set[Path], around: Path = ()) -> dict[str, Any]:
    """Return *data* without the keys at the paths in *broken*, which are whole ones (`_to_key`)."""
    if () in broken:
        return {}
    kept = ((key, value, (*around, key)) for key, value in data.items() if (*around, key) not in broken)
    return {key: _without(value, broken, path) if isinstance(value, dict) else value for key, value, path in kept}


def _to_key(path: Path) -> Path:
    """Return the path of the list that an item is in, or *path* itself: a list with a wrong item goes as a whole."""
    return next((path[:length] for length, part in enumerate(path) if isinstance(part, int)), path)


def _overlap(one: Path, other: Path) -> bool:
    """Answer whether one of the paths is the other or lies around it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def answer(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a `start` message: resolved settings with the runtime block as given, or every problem."""
    runtime = start.get("runtime") or {}
    try:
        loaded = load(start.get("config_path"), overrides=start.get("overrides"), environ=start.get("environ"))
    except ConfigError as error:
        return {"type": "problems", "problems": [problem.as_message() for problem in error.problems]}
    return {"type": "settings", "settings": resolve(loaded.settings, runtime)}


def main(channel_fd: int = 3) -> int:
    """Answer one `start` frame; return the exit code: 0 for either answer, 75 when the supervisor went away."""
    with socket.socket(fileno=channel_fd) as channel:
        reader = FrameReader()
        while True:
            data = channel.recv(65536)
            if not data:
                return 75
            for message in reader.feed_messages(data):
                if message.get("type") == "start":
                    channel.sendall(encode_message(answer(message)))
                    return 0


if __name__ == "__main__":
    sys.exit(main())
