"""Signal handlers, set without enums.

`signal.signal` makes enum members of the signal and of both handlers: for the seven signals of an executor that writes to 40
pages, each of which a child that has just been forked has to copy first.
"""

import _signal  # type: ignore[import-not-found]
from collections.abc import Callable, Iterable
from types import FrameType

_DEFAULT = int(_signal.SIG_DFL)


def reset_handlers(signums: Iterable[int]) -> None:
    """Let each of *signums* do what it does by default."""
    for signum in signums:
        _signal.signal(int(signum), _DEFAULT)


def handle(signum: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """Have *handler* called on *signum*, with the number as a plain one."""
    _signal.signal(int(signum), handler)
