"""Somebody else to run a pool as, where there is one: the tests must be root, and Python and the checkout be open to others.

Where they are not (a home of root, mode 0700), commands get a view of the file system of their own, in which they are.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from reproq_supervisor.process.identity import Identity, identity_of
from tests.support.shard import ROOT

NAME = "nobody"
_PROBE = f"""
from reproq_supervisor.process.identity import identity_of
identity_of({NAME!r}).become()
import decimal, psycopg, workers.demo.tasks
"""


def somebody_else() -> Identity:
    """Return who it is; ask `why_nobody_else` before."""
    return identity_of(NAME)


@cache
def why_nobody_else() -> str | None:
    """Return why no test here can be somebody else, None when it can."""
    if os.geteuid() != 0:
        return "only root may become somebody else"
    argv = [*open_view(), sys.executable, "-c", _PROBE]
    try:
        done = subprocess.run(argv, cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True)
    except OSError as error:
        return f"{argv[0]}: {error}"
    return f"closed to {NAME}: {done.stderr[-300:]}" if done.returncode else None


@cache
def open_view() -> tuple[str, ...]:
    """Return what to put in front of a command line so that everybody can reach Python and the checkout; the process stays the same."""
    needed = _outermost(Path(path).resolve() for path in (sys.base_prefix, sys.prefix, ROOT))
    closed = [(path, folder) for path in needed if (folder := _closed_above(path)) is not None]
    if not closed:
        return ()
    steps = ["set -e", "mount -t tmpfs tmpfs /mnt"]
    for at, (path, _) in enumerate(closed):
        steps += [f"mkdir /mnt/{at}", f"mount --rbind '{path}' /mnt/{at}"]
    for folder in _outermost(folder for _, folder in closed):
        steps.append(f"mount -t tmpfs -o mode=755 tmpfs '{folder}'")
    for at, (path, _) in enumerate(closed):
        steps += [f"mkdir -p '{path}'", f"mount --rbind /mnt/{at} '{path}'"]
    return (shutil.which("unshare") or "unshare", "--mount", "sh", "-c", "\n".join([*steps, 'exec "$@"']), "sh")


@cache
def as_somebody_else() -> tuple[str, ...]:
    """Return what to put in front of a command line to run it as somebody whom a file can be refused; nothing when we are no root."""
    if os.geteuid() != 0:
        return ()
    return (*open_view(), sys.executable, "-P", "-m", "reproq_supervisor.process.launch", "--user", NAME, "--")


def why_no_file_can_be_refused() -> str | None:
    """Return why nobody here can be kept from reading a file: root reads everything, and cannot always become somebody else."""
    return why_nobody_else() if os.geteuid() == 0 else None


@contextmanager
def folder_of_somebody_else() -> Iterator[Path]:
    """Return a new folder for whom `as_somebody_else` runs; for us when we are no root."""
    with tempfile.TemporaryDirectory(prefix="reproq-test-", dir="/tmp") as name:
        if os.geteuid() == 0:
            os.chown(name, somebody_else().uid, somebody_else().gid)
        yield Path(name)


def _outermost(paths: Iterator[Path]) -> list[Path]:
    """Drop what is inside another of them."""
    each = set(paths)
    return sorted(path for path in each if not any(path != other and path.is_relative_to(other) for other in each))


def _closed_above(path: Path) -> Path | None:
    """Return the first folder on the way to *path* that others may not pass."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)
