"""Start a child program as a fresh interpreter with a channel to us.

`posix_spawn` keeps the parent's state out of the child: empty signal mask, default handlers, own session, and no
descriptors but the standard ones and the channel at descriptor 3. The parent's signals are masked meanwhile, so that
none is lost between start and bookkeeping.
"""

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from reproq_supervisor.process.masks import signals_blocked

CHANNEL_FD = 3


@dataclass(frozen=True, slots=True)
class SpawnedChild:
    """A running direct child. The caller owns both the pidfd and the channel."""

    pid: int
    pidfd: int
    channel: socket.socket


def python_argv(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs *module* with our interpreter, without the current folder on its path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def spawn_child(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    setsid: bool = True,
    stdout: int | None = None,
    stderr: int | None = None,
) -> SpawnedChild:
    """Start *argv* with one end of a new channel at descriptor 3.

    Args:
      argv: argv[0] is the full path of the program.
      stdout, stderr: descriptors to give the child instead of ours; standard input is always empty.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    devnull = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    # dup2 in the child onto the same number would keep close-on-exec set: move the source out of the way first.
    source = theirs.fileno()
    if source == CHANNEL_FD:
        source = os.dup(source)
        theirs.close()
        theirs = socket.socket(fileno=source)
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, devnull, 0)]
    if stdout is not None:
        actions.append((os.POSIX_SPAWN_DUP2, stdout, 1))
    if stderr is not None:
        actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
    actions.append((os.POSIX_SPAWN_DUP2, source, CHANNEL_FD))
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _stray_descriptors()]
    try:
        with signals_blocked():
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                dict(env),
                file_actions=actions,
                setsid=setsid,
                setsigmask=[],
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
            pidfd = os.pidfd_open(pid)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(devnull)
    return SpawnedChild(pid, pidfd, ours)


def _stray_descriptors() -> list[int]:
    """Return what a child would inherit by accident: descriptors that we were started with ourselves, such as the lock file of a script."""
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        with suppress(OSError):  # the descriptor of the listing itself
            if fd > CHANNEL_FD and os.get_inheritable(fd):
                found.append(fd)
    return found


def adopt_channel() -> socket.socket:
    """In the child: take the channel that `spawn_child` left at descriptor 3, and keep it from our own children."""
    os.set_inheritable(CHANNEL_FD, False)
    return socket.socket(fileno=CHANNEL_FD)
