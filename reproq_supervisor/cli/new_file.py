"""Writing a file for a person, who may have one of that name already."""

import os
import tempfile
from pathlib import Path

from reproq_supervisor.core.errors import ReproqError


class FileInTheWayError(ReproqError):
    """There is a file already, and nobody said that it may be replaced."""


def write_new(path: Path, text: str, *, replace: bool) -> None:
    """Write the whole file or nothing. The file's own folder is made; one further up that is missing is more likely a slip.

    Raises:
      FileInTheWayError: there is one, and *replace* is not set.
      ReproqError: the system refuses.
    """
    try:
        _write(path, text, replace=replace)
    except FileExistsError:
        raise FileInTheWayError(f"{path}: expected no file, found one: give another name, or --force to replace it") from None
    except OSError as error:
        raise ReproqError(f"{path}: expected to write a file: {error.strerror}") from error


def _write(path: Path, text: str, *, replace: bool) -> None:
    if not replace and os.path.lexists(path):
        raise FileExistsError(path)
    path.parent.mkdir(exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        if replace:
            Path(name).replace(path)
        else:
            os.link(name, path)  # unlike a rename, this refuses a file that came in the meantime
    finally:
        Path(name).unlink(missing_ok=True)
