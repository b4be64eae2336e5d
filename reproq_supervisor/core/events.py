"""Events: frozen values that say what happened. `telemetry` turns each into one line; nothing else words log lines.

An event's name is `noun.past_verb`; its fields are the closed list of log keys that `telemetry.keys` knows.
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar


class Level(StrEnum):
    """How much an event matters to somebody who reads the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    name: ClassVar[str]
    level: ClassVar[Level] = Level.INFO

    def __init_subclass__(cls) -> None:
        # A dataclass without a docstring makes itself one with `inspect`: 1 MiB of the supervisor, needed for nothing else.
        cls.__doc__ = cls.__doc__ or cls.name

    def as_fields(self) -> dict[str, Any]:
        """Return the fields in their order, without those that are None."""
        pairs = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {key: value for key, value in pairs if value is not None}
