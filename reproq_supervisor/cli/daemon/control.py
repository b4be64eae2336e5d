"""Asking the daemon: a request goes out, an answer comes back or an error with an exit code is raised."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reproq_supervisor.cli.daemon.record import NoDaemonError, find_control_socket, how_to_start, is_answering
from reproq_supervisor.cli.options import Options
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.problems import ConfigError, Problem
from reproq_supervisor.supervisor.client import ControlClient, DaemonLeft, DaemonUnavailable


class RefusedError(ReproqError):
    """The daemon did not do it, and said why."""


class RefusedUsageError(RefusedError):
    """It does not know what was asked for, such as a pool of that name."""

    exit_code = 2


class RefusedAwayError(RefusedError):
    """Something that it needs is not there."""

    exit_code = 69


class RefusedForNowError(RefusedError):
    """It cannot now; ask again."""

    exit_code = 75


class RefusedConfigError(RefusedError):
    """The configuration cannot be used."""

    exit_code = 78


_REFUSALS = {error.exit_code: error for error in (RefusedUsageError, RefusedAwayError, RefusedForNowError, RefusedConfigError)}


def ask(options: Options, command: str, *, timeout_s: float | None = 10, **fields: Any) -> dict[str, Any]:
    """Send one request to the daemon of these options and return its answer.

    Args:
      timeout_s: None waits for ever, for requests that the daemon answers when it is done (it has deadlines of its own).

    Raises:
      NoDaemonError: nobody answers.
      ConfigError: the daemon found problems in the configuration file; it holds them all.
      RefusedError: it refused; the subclass has the exit code.
    """
    with _reached(options) as client:
        return _checked(options, client.request({"command": command, **fields}, timeout_s=timeout_s))


def listen(options: Options, command: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """Send one request and yield what the daemon streams, until either side leaves. Raises as `ask`."""
    with _reached(options) as client:
        for frame in client.stream({"command": command, **fields}):
            yield _checked(options, frame) if "ok" in frame else frame


@contextmanager
def _reached(options: Options) -> Iterator[ControlClient]:
    path = find_control_socket(options, os.environ)
    try:
        yield ControlClient(path)
    except DaemonUnavailable as error:
        raise NoDaemonError(f"daemon: expected an answer, got: {error}; {_remedy(options, path, error)}") from error


def _remedy(options: Options, path: str, error: DaemonUnavailable) -> str:
    if isinstance(error.__cause__, PermissionError):
        return "be root, or the user that runs it"
    if isinstance(error, DaemonLeft):
        return "it ended while it was at this: look at its log, and ask again when it is back"
    if is_answering(path):
        return "it is there, but busy or hung: look at its log"
    return f"start it with: {how_to_start(options)}"


def _checked(options: Options, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer without `ok`.

    Raises:
      ConfigError, RefusedError: it is a refusal.
    """
    if answer.pop("ok", False):
        return answer
    if answer.get("problems"):
        problems = tuple(Problem(**problem) for problem in answer["problems"])
        # The daemon's own name of the file: what we would find may be another, or none any more.
        raise ConfigError(answer.get("source") or options.config_path or "configuration", problems)
    raise _REFUSALS.get(int(answer.get("code", 1)), RefusedError)(str(answer.get("error", "refused without a reason")))
