"""Paths and names as a unit file must have them: systemd.syntax(7) for values, systemd.service(5) for command lines."""

import re
from collections.abc import Iterable
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEEDS_QUOTES = re.compile(r"[\s\"'\\;]|^$")


class UnitTextError(ValueError):
    """A text that no unit file can hold."""


def plain(text: str | Path) -> str:
    """Return the text for a directive that takes its whole line: only `%` means something there.

    Raises:
      UnitTextError: it has control characters, or spaces around it, which would get lost.
    """
    text = str(text)
    if _CONTROL.search(text) or text != text.strip() or text.endswith("\\"):
        raise UnitTextError(f"{text!r}: expected no control characters, no spaces around it and no \\ at its end, for a unit file")
    return text.replace("%", "%%")


def listed(paths: Iterable[Path]) -> str:
    """Return the value of a directive that takes several paths."""
    return " ".join(_quoted(plain(path)) for path in paths)


def command_line(program: Path, *arguments: str | Path) -> str:
    """Return the value of ExecStart= and its like: no shell, but variables, which `$$` keeps from being filled in."""
    words = [plain(program), *(plain(argument).replace("$", "$$") for argument in arguments)]
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if not _NEEDS_QUOTES.search(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
