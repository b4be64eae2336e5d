"""What the daemon of a configuration must be able to do on its machine: hardening takes away the rest."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reproq_supervisor.cli.systemd.site import Site
from reproq_supervisor.settings.model import EMBEDDED, Settings

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - named, not written to


@dataclass(frozen=True, slots=True)
class Needs:
    """What the daemon needs beyond a network and its own folders.

    Attributes:
      root: it runs as root.
      other_users: it is root, and starts processes as somebody else.
      lowest_nice: the smallest niceness of a pool; below 0 is a privilege.
      open_files: the most descriptors that an executor may have.
      homes: something that it reads is in somebody's home.
      temporary: something that it shares with others is in a folder for temporary files.
      writable: folders to write to that are not its own.
    """

    root: bool
    other_users: bool
    lowest_nice: int
    open_files: int
    homes: bool
    temporary: bool
    writable: tuple[Path, ...]


def find_needs(settings: Settings, site: Site) -> Needs:
    """Return what the configuration needs at that site."""
    writable = sorted({*site.writable, *_written(settings, site)})
    read = [*site.installed, site.python, site.directory, site.config, *(site.directory / path for path in settings.app.path)]
    return Needs(
        root=site.is_root,
        other_users=site.is_root and (settings.database == EMBEDDED or any(pool.user for pool in settings.pools.values())),
        lowest_nice=min(pool.nice for pool in settings.pools.values()),
        open_files=max(pool.limits.open_files or 0 for pool in settings.pools.values()),
        homes=_any_below([*read, *writable], _HOMES),
        temporary=_any_below([*read, *writable], TEMPORARY),
        writable=tuple(path for path in writable if not _any_below([path], site.own_folders)),
    )


def _written(settings: Settings, site: Site) -> Iterable[Path]:
    if settings.logs_dir is not None:
        yield site.directory / settings.logs_dir
    if settings.control.socket is not None:
        yield (site.config.parent / settings.control.socket).parent


def _any_below(paths: Iterable[Path], folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)
