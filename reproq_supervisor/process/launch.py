"""Become another program: as another user, and never outliving the parent.

    python -P -m reproq_supervisor.process.launch --parent 4711 --user nobody --pdeathsig QUIT -- /path/of/postgres -D …

The order is the point. The kernel forgets the parent-death signal when the uid changes, so it is armed after the drop; it says nothing
about a parent that died before it was armed, so the parent is looked up again afterwards; `exec` keeps it. A channel at descriptor 3 is
closed by the `exec`: its end of file tells the parent that the program runs, or failed to start.

Exit codes: 78 when the user or the program cannot be used, 0 when the parent was gone before the start.
"""

import os
import pwd
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from reproq_supervisor.process.prctl import set_pdeathsig
from reproq_supervisor.process.spawn import python_argv

if TYPE_CHECKING:
    import argparse

MODULE = "reproq_supervisor.process.launch"
EXIT_PERMANENT = 78


def launch_argv(argv: Sequence[str], *, user: str | None, pdeathsig: signal.Signals | None) -> list[str]:
    """Return the command line that starts *argv* through this module, as a child of the calling process.

    Args:
      argv: argv[0] is the full path of the program; relative paths do not survive, the program starts in `/`.
      user: name of the account to become; None stays who we are.
    """
    options = ["--parent", str(os.getpid())]
    if user is not None:
        options += ["--user", user]
    if pdeathsig is not None:
        options += ["--pdeathsig", pdeathsig.name.removeprefix("SIG")]
    return python_argv(MODULE, *options, "--", *argv)


def become_user(name: str) -> None:
    """Drop to the account *name*, its primary group and no other, for good.

    Raises:
      KeyError: there is no such account.
      OSError: we may not become it.
    """
    account = pwd.getpwnam(name)
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)


def _parse(arguments: Sequence[str]) -> "argparse.Namespace":
    import argparse  # here: those who start this program import it for its command line only

    parser = argparse.ArgumentParser(prog="launch", description="Become another program.")
    parser.add_argument("--parent", type=int, default=None, help="pid of the parent to live with")
    parser.add_argument("--user", default=None)
    parser.add_argument("--pdeathsig", default=None, type=lambda name: signal.Signals[f"SIG{name}"])
    parser.add_argument("argv", nargs="+")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> NoReturn:
    """Drop privileges, arm the parent-death signal, and exec."""
    options = _parse(arguments)
    parent = os.getppid() if options.parent is None else options.parent
    try:
        _close_descriptors_on_exec()
        if options.user is not None:
            become_user(options.user)
        os.umask(0o077)
        os.chdir("/")
        if options.pdeathsig is not None:
            set_pdeathsig(options.pdeathsig, parent_pid=parent)
        if os.getppid() != parent:
            sys.exit(0)
        # Python ignores these two for itself, and ignored signals survive an exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execv(options.argv[0], options.argv)  # noqa: S606 - no shell is the point
    except (KeyError, OSError) as error:
        sys.stderr.write(f"launch: cannot start {options.argv[0]} as {options.user or 'the current user'}: {error}\n")
        sys.exit(EXIT_PERMANENT)


def _close_descriptors_on_exec() -> None:
    """Keep only the standard descriptors. To be done before the drop: afterwards /proc/self belongs to root."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - bare numbers are wanted
        if int(name) > 2:
            with suppress(OSError):  # the descriptor of the listing itself, closed by now
                os.set_inheritable(int(name), False)


if __name__ == "__main__":
    main(sys.argv[1:])
