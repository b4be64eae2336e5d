"""Traces that a rule made and that a person has looked at: the same story must go the same way, line for line.

A rule that was changed on purpose: REPROQ_GOLDEN=write, run the test, and look at what `git diff` shows.
"""

import os
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "unit" / "golden"


def changes(trace: Iterable[tuple[float, object]]) -> list[str]:
    """Return a line for each time at which what is said of it is not what was said before."""
    lines, last = [], None
    for at, what in trace:
        if what != last:
            lines.append(f"{at:g}s {what}")
            last = what
    return lines


def assert_golden(name: str, lines: list[str]) -> None:
    """Compare with the trace of that name."""
    path = FOLDER / f"{name}.txt"
    text = "".join(f"{line}\n" for line in lines)
    if os.environ.get("REPROQ_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text(), f"{path.name}: the story goes another way; see tests/support/golden.py"
