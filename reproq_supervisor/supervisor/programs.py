"""Which program fills a unit, and in which environment."""

import os
import socket
from collections.abc import Mapping

from reproq_supervisor.core.supervision.plan import Plan
from reproq_supervisor.core.supervision.units import Role, Unit
from reproq_supervisor.process.guard import guard_argv
from reproq_supervisor.process.probe import SOCKET_NAME
from reproq_supervisor.process.spawn import python_argv

_MODULES = {
    Role.PREPARE: "reproq_supervisor.store.prepare",
    Role.KEEPER: "reproq_supervisor.keeper",
    Role.SHARD: "reproq_supervisor.pool",
    Role.LOADER: "reproq_supervisor.settings.load",
}

# A child that has these could speak to the service manager in our name, or take over its sockets.
_OURS_ALONE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class Programs:
    """Knows the command line of every unit. A test gives the roles other modules."""

    def __init__(self, modules: Mapping[Role, str] | None = None) -> None:
        self._modules = {**_MODULES, **(modules or {})}

    def argv(self, unit: Unit, plan: Plan) -> list[str]:
        """Return the command line for *unit*; it holds no secret."""
        if unit.role is Role.POSTGRES:
            assert plan.embedded is not None
            embedded = plan.embedded
            return guard_argv(embedded["argv"], user=embedded["user"], socket_path=f"{embedded['socket_dir']}/{SOCKET_NAME}")
        return python_argv(self._modules[unit.role])


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* without what is meant for the supervisor alone."""
    return {name: value for name, value in environ.items() if name not in _OURS_ALONE}


def new_worker_id(pid: int, name: str | None = None) -> str:
    """Return a `leased_by` that no process ever had: `<name or hostname>-<pid>-<random>`."""
    return f"{name or socket.gethostname()}-{pid}-{os.urandom(4).hex()}"


def parent_environment() -> dict[str, str]:
    """Return the environment that children are started with."""
    return child_environment(os.environ)
