"""Import what can do without a module as if that module were not installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """Let imports of *name* fail within the block; afterwards it can be imported as ever. One that is loaded already stays.

    Only for what the importer itself provides for: an `import` within `try: … except ImportError`.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how the import system is told (documented for `sys.modules`)
    try:
        yield
    finally:
        del sys.modules[name]
