"""The layers of a configuration, one over the other, and which of them gave each value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reproq_supervisor.settings.document import Document, Path, Place
from reproq_supervisor.settings.scheduler_mode import VARIABLE, does_beat

DEFAULT = "default"
FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Override:
    """A value put over the file, and where it came from: `flag`, `environment DATABASE_URL`."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Layers:
    """Defaults < file < environment < flags. The defaults are the models' own and not held here."""

    source: str
    document: Document
    overrides: dict[Path, Override] = field(default_factory=dict)

    @classmethod
    def stack(
        cls, source: str, document: Document, environ: Mapping[str, str], flags: Mapping[str, Any], *, credential: str | None = None
    ) -> "Layers":
        """Put the database of the service manager's *credential*, what the environment says and the flags (by dotted key) over the file."""
        overrides: dict[Path, Override] = {}
        if credential is not None:
            overrides["database",] = Override(credential, "credential dsn")
        if url := environ.get("DATABASE_URL"):
            overrides["database",] = Override(url, "environment DATABASE_URL")
        if (beats := does_beat(environ)) is not None:
            overrides["keeper", "beat"] = Override(beats, f"environment {VARIABLE}")
        for key, value in flags.items():
            overrides[tuple(key.split("."))] = Override(value, FLAG)
        return cls(source, document, overrides)

    def merge(self) -> dict[str, Any]:
        """Return the file's data with every override in its place."""
        result = dict(self.document.data)
        for path, override in self.overrides.items():
            target = result
            for part in path[:-1]:
                inner = target.get(str(part))
                copy = dict(inner) if isinstance(inner, dict) else {}
                target[str(part)] = copy
                target = copy
            target[str(path[-1])] = override.value
        return result

    def is_given(self, path: Path) -> bool:
        """Answer whether somebody gave this very value: it is not a default and not made from a shorthand."""
        if self.is_covered(path):
            return self.override_of(path) is not None
        return path in self.document.values

    def is_covered(self, path: Path) -> bool:
        """Answer whether an override lies over the file at *path*, even one that leaves this value to its default."""
        return any(path[:length] in self.overrides for length in range(1, len(path) + 1))

    def override_of(self, path: Path) -> Override | None:
        """Return the override that gave the value at *path*, if one did."""
        for length in range(len(path), 0, -1):
            if override := self.overrides.get(path[:length]):
                return override if _is_inside(override.value, path[length:]) else None
        return None

    def place_of(self, path: Path, *, key: bool = False) -> Place | None:
        """Return the place in the file of the value (or key) at *path*, or of the nearest thing around it.

        None when it came from a flag or variable, or when there is no file.
        """
        if self.is_covered(path):
            return None
        if key and path in self.document.keys:
            return self.document.keys[path]
        around = (path[:length] for length in range(len(path), -1, -1))
        return next((self.document.values[outer] for outer in around if outer in self.document.values), None)

    def origin_of(self, path: Path) -> str:
        """Return where the value at *path* came from: `default`, `file.yaml:12`, `environment NAME`, `flag`."""
        if override := self.override_of(path):
            return override.origin
        given = None if self.is_covered(path) else self._given_in_file(path)
        if given is None:
            return DEFAULT
        place = f"{self.source}:{self.document.values[given].line}"
        names = self.document.variables.get(given)
        return f"environment {', '.join(names)} ({place})" if names else place

    def _given_in_file(self, path: Path) -> Path | None:
        """Return the path of what the file has for *path*: itself, or the shorthand around it (`executors: 4`, a list of queues)."""
        for length in range(len(path), 0, -1):
            outer = path[:length]
            if outer in self.document.values:
                return outer if length == len(path) or outer not in self.document.mappings else None
        return None


def _is_inside(value: Any, path: Path) -> bool:
    """Answer whether *value* says something about what is at *path* below it; a shorthand says it about everything."""
    for part in path:
        if not isinstance(value, dict):
            return True
        if part not in value:
            return False
        value = value[part]
    return True
