"""Which settings need rights that this process does not have, asked before anything is started."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reproq_supervisor.process.identity import identity_of
from reproq_supervisor.process.limits import beyond_hard_limits
from reproq_supervisor.settings.finding import Finding

if TYPE_CHECKING:
    from reproq_supervisor.settings.model import Settings
    from reproq_supervisor.settings.pools import Pool

_CAP_SETGID = 6
_CAP_SETUID = 7
_CAP_SYS_NICE = 23
_CAP_SYS_RESOURCE = 24


def find_lacking(settings: "Settings") -> Iterator[Finding]:
    """Yield the settings of pools that a daemon started by this process could not carry out."""
    for name, pool in settings.pools.items():
        yield from _user(name, pool)
        yield from _nice(name, pool)
        if not _has(_CAP_SYS_RESOURCE):
            for limit, wanted, hard in beyond_hard_limits(pool.limits.model_dump()):
                path = ("pools", name, "limits", limit)
                message = f"expected at most {hard}, the hard limit of the daemon, got {wanted}"
                yield Finding(
                    path, (path,), message, "raise it where the daemon is started: LimitNOFILE= and the like of systemd, or ulimit"
                )


def _user(name: str, pool: "Pool") -> Iterator[Finding]:
    if pool.user is not None and not (_has(_CAP_SETUID) and _has(_CAP_SETGID)) and not identity_of(pool.user).is_ours:
        path = ("pools", name, "user")
        message = f"expected a daemon that is root, which may become {pool.user}; this is user {os.geteuid()}"
        yield Finding(path, (path,), message, "start it as root, or leave user out")


def _nice(name: str, pool: "Pool") -> Iterator[Finding]:
    # The limit counts from the other end: 20 is niceness 0, 40 is -20.
    lowest = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0]
    if pool.nice < min(0, lowest) and not _has(_CAP_SYS_NICE):
        path = ("pools", name, "nice")
        message = f"expected {max(-20, min(0, lowest))} or more without privileges, got {pool.nice}"
        yield Finding(path, (path,), message, "start the daemon as root, or with CAP_SYS_NICE or LimitNICE=")


def _has(capability: int) -> bool:
    """Answer whether this process has *capability* in force; root has them all, unless a container took some."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("\nCapEff:")[2].split(maxsplit=1)[0], 16) >> capability & 1)
