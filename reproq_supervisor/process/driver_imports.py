"""What asyncio and the database driver import, and neither ever needs in our processes: 4 MiB in each that has a connection."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reproq_supervisor.process.leave_out import left_out
from reproq_supervisor.process.postpone import StandIn, postponed

_INFO = ".dist-info"


class _Metadata(StandIn):
    """Answers what the driver asks, its own version, without `importlib.metadata`, which brings `email` and `zipfile` (1.4 MiB)."""

    def version(self, distribution: str) -> str:
        found = installed_version(distribution)
        return str(self.load().version(distribution)) if found is None else found


@contextmanager
def without_unused_imports() -> Iterator[None]:
    """Import asyncio and the driver within the block, without what they never use here."""
    with (
        # asyncio does without TLS where it is not there, and libpq has its own; `shutil` without the formats of archives.
        left_out("ssl", "bz2", "lzma"),
        # Of the driver's search for a libpq that is not its own, of subprocesses in text mode, of tracebacks, and of TLS again.
        postponed("shutil", "tempfile", "locale", "tokenize", "asyncio.sslproto", _Metadata("importlib.metadata")),
    ):
        yield


def installed_version(distribution: str) -> str | None:
    """Return the version in the name of the folder that installers leave (`psycopg_binary-3.3.6.dist-info`); None: no such folder."""
    stem = distribution.replace("-", "_") + "-"
    for place in sys.path:
        for found in Path(place).glob(f"{stem}*{_INFO}"):
            return found.name.removeprefix(stem).removesuffix(_INFO)
    return None
