"""Become another user for good, with all that belongs to it: its groups and the variables that name it."""

import os
import pwd
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """An account as the kernel and programs know it.

    Attributes:
      name: None for a number without an account; it then has the group of the same number, and no home.
    """

    uid: int
    gid: int
    name: str | None = None
    home: str | None = None

    def become(self) -> None:
        """Change to it, all groups included; nothing of what we were can be had back.

        Raises:
          PermissionError: we may not.
        """
        os.setgroups(os.getgrouplist(self.name, self.gid) if self.name is not None else [])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    @property
    def is_ours(self) -> bool:
        """Whether we are it already."""
        return (self.uid, self.uid) == (os.getuid(), os.geteuid())

    def environment(self) -> dict[str, str]:
        """Return the variables by which programs find out whose process they are."""
        named = {} if self.name is None else {"USER": self.name, "LOGNAME": self.name}
        return {**named, "HOME": self.home or "/"}


def identity_of(user: str) -> Identity:
    """Return who *user*, a name or a number, is.

    Raises:
      LookupError: there is no account of that name.
    """
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return Identity(int(user), int(user))
        raise LookupError(f"expected an account of this machine, got {user!r}") from None
    return Identity(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir)
