"""Where the daemon is on a machine, as whom it runs there, and what its operator asked for."""

import re
from dataclasses import dataclass
from pathlib import Path

NAME = "reproq-supervisor"
INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Site:
    """What a unit file is filled in with. Every path is absolute.

    Attributes:
      instance: tells several daemons of one machine apart; empty for the only one.
      installed: the folders of interpreter, libraries and this package.
      credential: the file with the DSN that the service manager hands over, None when it hands over none.
      writable: folders that tasks write to, beside those that the service manager makes.
      systemd: version of the service manager.
      start: what the interpreter is given to become the daemon; empty: `reproq-supervisor run` of the configuration.
      base: what its name begins with.
    """

    user: str
    group: str
    is_root: bool
    python: Path
    installed: tuple[Path, ...]
    directory: Path
    config: Path
    systemd: int
    instance: str = ""
    credential: Path | None = None
    env_file: Path | None = None
    writable: tuple[Path, ...] = ()
    notify_reload: bool = False
    start: tuple[str | Path, ...] = ()
    base: str = NAME

    @property
    def name(self) -> str:
        """Name of the unit and of its folders in /etc, /run, /var/lib and /var/log."""
        return f"{self.base}-{self.instance}" if self.instance else self.base

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """The folders that the service manager makes for it."""
        return tuple(Path(above) / self.name for above in ("/run", "/var/lib", "/var/log"))
