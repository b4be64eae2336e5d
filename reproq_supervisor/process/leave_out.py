"""Import what can do without a module as if that module were not installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """Let imports of *names* fail within the block; afterwards they can be imported as ever. What is loaded already stays.

    Only for what the importer itself provides for: an `import` within `try: … except ImportError`.
    """
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # how the import system is told (documented for `sys.modules`)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
