"""A worker's folder: any number of workers may be started in one place, so each has a private one for its socket and its record."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from reproq_supervisor.cli.daemon.record import read_record
from reproq_supervisor.cli.places import RECORD_NAME, SOCKET_NAME, WORKER_PREFIX, Places, private_worker_folders, worker_parent


def make_folder(environ: Mapping[str, str]) -> tuple[Places, tuple[str, ...]]:
    """Return the places of a new worker, and the folders that go with it: none where the service manager made its folder."""
    if given := environ.get("RUNTIME_DIRECTORY"):
        folder = Path(given.split(":")[0])
        return Places(folder, folder, folder / SOCKET_NAME), ()
    remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=WORKER_PREFIX, dir=worker_parent()))
    return Places(folder, folder, folder / SOCKET_NAME), (str(folder),)


def remove_left_behind() -> None:
    """Remove the folders of workers that were killed. One without a record may be about to get it, and stays."""
    for folder in private_worker_folders():
        record = read_record(folder / RECORD_NAME)
        if record is not None and not record.answers and not _is_alive(record.pid):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
