"""Which account runs a program that refuses to run as root, and what that account can reach."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CANDIDATES = ("postgres", "nobody")
_TRIAL_TIMEOUT_S = 20


class NoAccount(RuntimeError):
    """We are root and can become nobody else."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account that was found to be usable by trying it."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Answer by trying whether the account can go to *folder*: a closed parent far up is enough to stop it."""
        return self._succeeds("/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder))

    def can_run(self, program: Path) -> bool:
        """Answer by trying whether the account can execute *program* with its libraries."""
        return self._succeeds(str(program), "--version")

    def own(self, folder: Path) -> None:
        """Give *folder* itself, not what it holds, to the account."""
        os.chown(folder, self.uid, self.gid)

    def own_all(self, folder: Path) -> None:
        """Give *folder* and all that it holds to the account: a strict umask may have closed it to others."""
        self.own(folder)
        for path in folder.rglob("*"):
            os.lchown(path, self.uid, self.gid)

    def _succeeds(self, *argv: str) -> bool:
        try:
            done = subprocess.run(
                argv,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TRIAL_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def account_of(uid: int) -> Account | None:
    """Return the account with *uid*, None when it has no name: PostgreSQL refuses to run without one."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def named_argv(argv: Sequence[str]) -> list[str]:
    """Return *argv* so that it runs under a name also where we, a number that somebody gave a container, have none. initdb insists on one.

    In a user namespace of its own the program is somebody whom this machine knows; what it makes is ours all the same.
    """
    known = next((account for name in CANDIDATES if (account := _account_named(name)) is not None), None)
    unshare = shutil.which("unshare")
    if account_of(os.geteuid()) is not None or known is None or unshare is None:
        return list(argv)
    return [unshare, "--user", f"--map-user={known.uid}", f"--map-group={known.gid}", "--", *argv]


def _account_named(name: str) -> Account | None:
    try:
        return account_of(pwd.getpwnam(name).pw_uid)
    except KeyError:
        return None


def choose_account(preferred_uid: int | None = None) -> Account | None:
    """Return the account to run as, or None when we are not root and stay who we are.

    Args:
      preferred_uid: owner of what exists already; the only choice when it is given.

    Raises:
      NoAccount: we are root, and no account can be used.
    """
    if os.geteuid() != 0:
        return None
    if preferred_uid:
        owner = account_of(preferred_uid)
        if owner is not None and owner.can_enter(Path("/")):
            return owner
        raise NoAccount(f"user {preferred_uid}: expected an account with a name that root may become, got {owner}")
    for name in CANDIDATES:
        account = _account_named(name)
        if account is not None and account.uid != 0 and account.can_enter(Path("/")):
            return account
    raise NoAccount(
        f"PostgreSQL refuses to run as root: expected one of the accounts {', '.join(CANDIDATES)}, and the right to become it; "
        "start as a normal user or give the URL of a database"
    )
