"""Values that the operating system gives a meaning: processors, resource limits, the mask of new files, accounts."""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, SerializationInfo, WithJsonSchema

from reproq_supervisor.settings.fields import Duration, Group, Size, Text, Whole, expected

MOST_CPUS = 8192
_CPU_PART = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_UMASK = re.compile(r"(?:0o)?([0-7]{1,4})")


def _read_cpus(value: object) -> object:
    """Let [0, 2-3], "0, 2-3" and 5 stand for sorted numbers; nothing means all processors."""
    if value is None or value == "":
        return []
    parts: Iterable[object] = value if isinstance(value, list) else str(value).split(",")
    numbers: set[int] = set()
    for part in parts:
        found = _CPU_PART.fullmatch(str(part).strip()) if not isinstance(part, bool) else None
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < MOST_CPUS:
            raise expected("numbers of processors and ranges, such as [0, 2-3]")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def _read_umask(value: object) -> object:
    """Read octal digits, quoted or not: YAML's 027 and 27 arrive as the number that these digits are in the decimal system."""
    if value is None or value == "":
        return None
    found = _UMASK.fullmatch(str(value)) if not isinstance(value, bool) else None
    if found is None or int(found[1], 8) > 0o777:
        raise expected("octal digits such as 027")
    return int(found[1], 8)


def _write_umask(value: int | None, info: SerializationInfo) -> int | str | None:
    """Write octal digits for people; a number for programs."""
    return f"{value:04o}" if value is not None and info.context and info.context.get("human") else value


def _read_user(value: object) -> object:
    if value == "":
        return None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _schema(*forms: dict[str, Any], examples: list[Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [*forms, {"type": "null"}], "examples": examples})


_CPU_TEXT = {"type": "string", "pattern": r"^\s*[0-9]+(-[0-9]+)?(\s*,\s*[0-9]+(-[0-9]+)?)*\s*$"}
CpuList = Annotated[
    list[int],
    BeforeValidator(_read_cpus),
    _schema({"type": "array", "items": {"anyOf": [{"type": "integer", "minimum": 0}, _CPU_TEXT]}}, _CPU_TEXT, examples=[[0, "2-3"]]),
]
Umask = Annotated[
    int | None,
    BeforeValidator(_read_umask),
    PlainSerializer(_write_umask),
    _schema({"type": "string", "pattern": "^(0o)?[0-7]{1,4}$"}, {"type": "integer", "minimum": 0, "maximum": 777}, examples=["027"]),
]
User = Annotated[
    Text | None,
    BeforeValidator(_read_user),
    _schema({"type": "string"}, {"type": "integer", "minimum": 0}, examples=["www-data", 1000]),
]


class ResourceLimits(Group):
    """Hard resource limits of each executor, which no task can raise unless it is root; null leaves the daemon's."""

    address_space: Annotated[Size | None, Field(ge=2**20)] = None
    """Memory it may map, the application included; past it a task meets MemoryError. More than `recycle.rss` by what a task takes."""
    data: Annotated[Size | None, Field(ge=2**20)] = None
    """Memory of its own that it may map; libraries and files do not count."""
    open_files: Annotated[Whole | None, Field(ge=128, le=2**20)] = None
    """Descriptors."""
    processes: Annotated[Whole | None, Field(ge=1, le=2**22)] = None
    """Processes and threads that its user may have in all when it starts one more; root is not limited."""
    core: Size | None = None
    """Size of a core file; 0 writes none."""
    cpu_time: Annotated[Duration | None, Field(ge=1)] = None
    """Processor time of a task, in whole seconds, then SIGXCPU; needs `isolation: fork` or `exec`, where a process runs one task."""
