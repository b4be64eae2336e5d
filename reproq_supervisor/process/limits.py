"""Resource limits: of this process, and those that an executor imposes on itself before it runs a task."""

import math
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

_RESOURCES = {
    "address_space": resource.RLIMIT_AS,
    "data": resource.RLIMIT_DATA,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
    "cpu_time": resource.RLIMIT_CPU,
}
_IN_KIB = {"address_space": "VmSize", "data": "VmData"}


def allow_all_descriptors() -> None:
    """Raise our limit of open descriptors as far as it goes; children inherit it. `select` fails past 1023: use `poll`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def beyond_hard_limits(limits: Mapping[str, float | None]) -> Iterator[tuple[str, int, int]]:
    """Yield (name, limit, our hard limit) of those in *limits* that only a privileged process can have."""
    for name, kind, wanted in _given(limits):
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY and wanted > hard:
            yield name, wanted, hard


def make_room_for(limits: Mapping[str, float | None]) -> None:
    """Raise our hard limits where *limits* ask for more, so that a process forked from here can have them; the soft ones stay.

    Raises:
      OSError: we may not; the message has the limit that we have.
    """
    for name, wanted, hard in beyond_hard_limits(limits):
        kind = _RESOURCES[name]
        try:
            resource.setrlimit(kind, (resource.getrlimit(kind)[0], wanted))
        except (ValueError, OSError):
            raise PermissionError(f"limits.{name}: expected at most {hard}, the hard limit of the daemon, got {wanted}") from None


def impose(limits: Mapping[str, float | None]) -> None:
    """Set *limits* (names of the settings) as soft and hard limits of this process: nothing that it runs can raise them again."""
    for name, kind, wanted in _given(limits):
        # At the hard limit of processor time the kernel kills without a name; a second before, SIGXCPU says what it was.
        grace = 1 if name == "cpu_time" and resource.getrlimit(kind)[1] == resource.RLIM_INFINITY else 0
        resource.setrlimit(kind, (wanted, wanted + grace))


def taken_already(limits: Mapping[str, float | None]) -> Iterator[tuple[str, int, int]]:
    """Yield (name, limit, what this process has of it) of those in *limits* that a fork of it would break at once; both in bytes."""
    status = Path("/proc/self/status").read_text()
    for name, _, wanted in _given(limits):
        field = _IN_KIB.get(name)
        if field is not None:
            has = int(status.partition(f"\n{field}:")[2].split(maxsplit=1)[0]) * 1024
            if has >= wanted:
                yield name, wanted, has


def _given(limits: Mapping[str, float | None]) -> Iterator[tuple[str, int, int]]:
    for name, kind in _RESOURCES.items():
        wanted = limits.get(name)
        if wanted is not None:
            yield name, kind, math.ceil(wanted)
