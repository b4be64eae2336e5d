"""What the unit file is filled in with from this machine: its systemd, the account, where Python and this package are."""

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import reproq_supervisor
from reproq_supervisor.process.account import Account

_VERSION = re.compile(r"^systemd (\d+)")
_TIMEOUT_S = 10
# Whoever writes the unit may have these for another purpose.
_NOT_OF_THE_SERVICE = ("DATABASE_URL", "CREDENTIALS_DIRECTORY")


class NoSuchAccountError(LookupError):
    """The machine does not know this user or group."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """As whom the daemon runs."""

    user: str
    group: str
    is_root: bool


def find_systemd() -> int | None:
    """Return the version of the service manager here, None when there is none."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    try:
        done = subprocess.run([systemctl, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.match(done.stdout)
    return int(found[1]) if found else None


def find_account(user: str | None, group: str | None, environ: Mapping[str, str]) -> ServiceAccount:
    """Return the named account, else that of whoever called sudo, else our own.

    Args:
      user, group: names or numbers; None for the group means the user's own.

    Raises:
      NoSuchAccountError: there is no such user or group.
    """
    sudo_user = environ.get("SUDO_USER") if os.geteuid() == 0 else None
    wanted = user or sudo_user or str(os.geteuid())
    entry = _find_user(wanted)
    if entry is None and not wanted.isdecimal():
        raise NoSuchAccountError(f"expected a user of this machine, got {wanted}")
    uid = entry.pw_uid if entry else int(wanted)
    wanted_group = group or str(entry.pw_gid if entry else wanted)
    return ServiceAccount(entry.pw_name if entry else wanted, _name_of_group(wanted_group), uid == 0)


def _find_user(wanted: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(wanted)) if wanted.isdecimal() else pwd.getpwnam(wanted)
    except (KeyError, OverflowError):
        return None


def _name_of_group(wanted: str) -> str:
    try:
        return (grp.getgrgid(int(wanted)) if wanted.isdecimal() else grp.getgrnam(wanted)).gr_name
    except (KeyError, OverflowError):
        if wanted.isdecimal():
            return wanted
        raise NoSuchAccountError(f"expected a group of this machine, got {wanted}") from None


def find_python() -> Path:
    """Return our interpreter, with the links of its virtual environment as they are: through them it finds its libraries."""
    return Path(sys.executable).absolute()


def find_installed() -> tuple[Path, ...]:
    """Return the folders that interpreter, libraries and this package are in."""
    package = Path(reproq_supervisor.__file__).resolve().parent.parent
    return tuple(dict.fromkeys([Path(sys.prefix), Path(sys.base_prefix).resolve(), package]))


def find_unreachable(user: str, folders: Iterable[Path]) -> list[Path]:
    """Return those folders that *user* cannot go to, found by trying; none when we may not try."""
    entry = _find_user(user)
    if os.geteuid() != 0 or entry is None or entry.pw_uid == 0:
        return []
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    return [folder for folder in dict.fromkeys(folders) if not account.can_enter(folder)]


def service_environment(env_file: Path | None) -> dict[str, str]:
    """Return the environment to read the configuration with: ours, without what is not the service's, and with what its file says."""
    environ = {name: value for name, value in os.environ.items() if name not in _NOT_OF_THE_SERVICE}
    try:
        lines = env_file.read_text(encoding="utf-8").splitlines() if env_file else []
    except (OSError, UnicodeDecodeError):
        lines = []  # told elsewhere
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            environ[name.strip()] = value.strip().strip("\"'")
    return environ
