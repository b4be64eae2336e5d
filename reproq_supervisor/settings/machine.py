"""What only the machine at hand can say of a value: is there such an account, such a processor?"""

import difflib
import os
import pwd
from collections.abc import Iterator

from reproq_supervisor.settings.document import Path
from reproq_supervisor.settings.finding import Finding
from reproq_supervisor.settings.pools import Pool


def check_machine(at: Path, pool: Pool) -> Iterator[Finding]:
    """Yield what this machine does not have. What it does not *permit* is another question, asked of the daemon that starts."""
    if pool.user is not None and not pool.user.isdecimal() and not _is_account(pool.user):
        path = (*at, "user")
        yield Finding(path, (path,), f"expected an account of this machine, got {pool.user!r}", _similar_account(pool.user))
    there = os.sysconf("SC_NPROCESSORS_CONF")
    if missing := [number for number in pool.cpus if number >= there]:
        path = (*at, "cpus")
        yield Finding(path, (path,), f"expected processors of this machine, 0 to {there - 1}, got {missing[0]}")


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _similar_account(name: str) -> str:
    close = difflib.get_close_matches(name, [entry.pw_name for entry in pwd.getpwall()], n=1)
    return f"did you mean {close[0]}?" if close else "a name of /etc/passwd, or the number of a user"
