"""Import the application in the nursery, and prove that it can be forked."""

import importlib
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from reproq_supervisor.executor import django_state
from reproq_supervisor.process import proctable

_STANDARD = frozenset({0, 1, 2})
_SETTLING_S = 5.0


class PreloadError(Exception):
    """The application cannot be imported or must not be forked; the message is what `explain` shows."""


def preload(app: Mapping[str, Any]) -> None:
    """Import what *app* (the `app` section) names, with its path first.

    Raises:
      PreloadError: names the module and the error.
    """
    sys.path[:0] = [os.path.abspath(path) for path in app.get("path") or []]  # noqa: PTH100 - a missing folder is no error
    settings_module = app.get("django_settings_module")
    if settings_module:
        os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
        _import("django", call="setup")
    for name in app.get("preload") or []:
        _import(name)
    try:
        django_state.close_everything()  # what a model or an application asked of the database while it was imported
    except BaseException as error:  # boundary: engines of databases and caches are the application's
        raise PreloadError(f"app.preload: closing Django's connections failed with {type(error).__name__}: {error}") from error


def _import(name: str, call: str | None = None) -> None:
    try:
        module = importlib.import_module(name)
        if call is not None:
            getattr(module, call)()
    except BaseException as error:  # boundary: importing runs user code, which may also exit
        raise PreloadError(f"app.preload: importing {name} failed with {type(error).__name__}: {error}") from error


def check_forkable(our_descriptors: frozenset[int]) -> None:
    """Refuse to fork a process with threads or with sockets that are not ours: both break in the child, later and elsewhere.

    The standard streams may be sockets: a service manager gives those of its journal.

    Raises:
      PreloadError: names the threads, or the sockets with their peers.
    """
    threads = _settled_threads()
    if len(threads) > 1:
        names = ", ".join(sorted(threads))
        raise PreloadError(f"app.preload: expected one thread after the imports, got {len(threads)} ({names})")
    sockets = proctable.open_sockets(our_descriptors | _STANDARD)
    if sockets:
        raise PreloadError(f"app.preload: expected no open sockets after the imports, got {'; '.join(sockets)}")


def _settled_threads() -> list[str]:
    """Return the names of our threads. A thread that Python has joined is still the kernel's for a moment, longer on a busy machine."""
    until = time.monotonic() + _SETTLING_S
    while len(names := proctable.thread_names()) > threading.active_count() and time.monotonic() < until:
        time.sleep(0.005)
    return names
