"""The conditions that a pool sets for its processes, and where each is taken on.

    nursery, before the imports   umask, room for the limits, nice, processors, then the user, then the environment
    nursery, after them           do the limits leave room for what was imported?
    executor, after its fork      the limits: those of a nursery would end it, or keep it from forking

The user comes before the imports, so that what they open and make is its own, and after everything that needs the rights given up for it.
What an executor cannot undo: the user, the limits, a raised niceness. It could choose other processors and another umask.
"""

import os
from collections.abc import Mapping
from typing import Any

import reproq_supervisor
from reproq_supervisor.process.identity import Identity, identity_of
from reproq_supervisor.process.limits import make_room_for, taken_already


class ConditionError(Exception):
    """A condition cannot be met here; the message is what `explain` shows."""


def take_on(pool: Mapping[str, Any]) -> None:
    """Take on what *pool* (its settings) asks for; in the nursery, before the imports.

    Raises:
      ConditionError: names the setting, and what it needs.
    """
    if pool.get("umask") is not None:
        os.umask(pool["umask"])
    try:
        make_room_for(pool.get("limits") or {})
    except PermissionError as error:
        raise ConditionError(f"{error}; raise it where the daemon is started (LimitNOFILE= and the like of systemd, or ulimit)") from None
    _be_nice(int(pool.get("nice") or 0))
    _stay_on(pool.get("cpus") or [])
    if pool.get("user") is not None:
        _become(str(pool["user"]))
    os.environ.update(pool.get("env") or {})


def check_room(pool: Mapping[str, Any]) -> None:
    """See that an executor has room to work in: a fork starts with all that was imported.

    Raises:
      ConditionError: names the limit and what it must be above.
    """
    for name, limit, has in taken_already(pool.get("limits") or {}):
        raise ConditionError(
            f"limits.{name}: expected more than the application takes by itself after its imports ({has >> 20} MiB), got {limit >> 20} MiB"
        )


def _be_nice(nice: int) -> None:
    if not nice:
        return
    try:
        os.nice(nice)
    except PermissionError:
        raise ConditionError(
            f"nice: expected 0 or more without privileges, got {nice}; start the daemon as root, or with CAP_SYS_NICE or LimitNICE="
        ) from None


def _stay_on(cpus: list[int]) -> None:
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError) as error:
        ours = sorted(os.sched_getaffinity(0))
        raise ConditionError(f"cpus: expected at least one processor that the daemon may use ({ours}), got {cpus}: {error}") from None


def _become(user: str) -> None:
    try:
        identity = identity_of(user)
        if identity.is_ours:
            return
        identity.become()
    except LookupError as error:
        raise ConditionError(f"user: {error}") from None
    except PermissionError:
        who = f"user {os.geteuid()}"
        raise ConditionError(
            f"user: expected the daemon to be root, which may become {user}, found {who}; leave user out, or start it as root"
        ) from None
    os.environ.update(identity.environment())
    _check_reach(identity, user)


def _check_reach(identity: Identity, user: str) -> None:
    """See that the program itself can be read: half of it was imported before, and the rest would fail one by one."""
    package = os.path.dirname(os.path.abspath(reproq_supervisor.__file__))  # noqa: PTH100, PTH120 - without resolving links
    for path in (package, os.path.join(package, "__init__.py"), os.__file__):  # noqa: PTH118
        if not os.access(path, os.R_OK):
            raise ConditionError(f"user: expected {user} (user {identity.uid}) to be able to read {path}; a folder above it may be closed")
