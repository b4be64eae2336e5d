"""How far a run says it has come, in the metadata of its record."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run says it has come; *total* and *message* only if it says so."""

    done: float
    total: float | None = None
    message: str | None = None

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:g}"
        return f"{self.done:g}{of}" + (f", {self.message}" if self.message else "")


def progress_in(metadata: Any) -> Progress | None:
    """Return the progress that the JSON *metadata* tells, None where it tells none: plain SQL may have put anything there."""
    said = metadata.get("progress") if isinstance(metadata, dict) else None
    if not isinstance(said, dict) or not _is_number(said.get("done")):
        return None
    total, message = said.get("total"), said.get("message")
    return Progress(said["done"], total if _is_number(total) else None, message if isinstance(message, str) else None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
