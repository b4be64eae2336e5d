"""Read a file that somebody may be writing at this moment: a valid beginning of a configuration must not be taken for the whole.

A reading counts when the file was the same before and after it, and had not been touched for a moment. What is written in one go (an
editor's rename) is read with that much delay; a writer that pauses for longer in the middle cannot be told from one that is done.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from reproq_supervisor.settings.problems import ConfigError, Problem

SETTLED_S = 0.3
EMPTY_SETTLED_S = 1.0
"""A file that was cut to nothing is about to be filled."""
MOST_S = 3.0
PAUSE_S = 0.05

_T = TypeVar("_T")
_State = tuple[int, int, int, int]


def read_settled(path: str | None, read: Callable[[], _T], *, pause: Callable[[float], None] = time.sleep) -> _T:
    """Return what *read* makes of the file at *path*, once nobody is writing it.

    Raises:
      ConfigError: of *read*, or the file kept changing for MOST_S seconds.
    """
    if path is None:
        return read()
    waits_left = round(MOST_S / PAUSE_S)
    while True:
        before = _state_of(path)
        refusal: ConfigError | None = None
        try:
            found = read()
        except ConfigError as error:
            refusal = error
        after = _state_of(path)
        is_settled = before == after and not _was_just_touched(after)
        if is_settled or waits_left == 0:
            if refusal is not None:
                raise refusal
            if before == after:
                return found  # touched all the time, but the same
            raise ConfigError(path, (Problem("", f"expected a file that nobody writes to, it changed for {MOST_S:g} s; reload again"),))
        waits_left -= 1
        pause(PAUSE_S)


def _state_of(path: str) -> _State | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path may hold what pathlib refuses
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _was_just_touched(state: _State | None) -> bool:
    """Answer whether the file may be in the middle of being written; a time in the future says nothing."""
    if state is None:
        return False
    _, _, size, touched_ns = state
    age_s = time.time() - touched_ns / 1e9
    return 0.0 <= age_s < (SETTLED_S if size else EMPTY_SETTLED_S)
