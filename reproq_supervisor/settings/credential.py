"""The database as a credential of systemd (`LoadCredential=dsn:/etc/…`): for the daemon alone, where a variable is for every child."""

from collections.abc import Mapping
from pathlib import Path

from reproq_supervisor.settings.source import read_source

NAME = "dsn"


def read_dsn(environ: Mapping[str, str]) -> str | None:
    """Return the URL in `$CREDENTIALS_DIRECTORY/dsn`, empty when the file is; None when the service manager gave none.

    Raises:
      ConfigError: there is such a file, and it cannot be read.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / NAME
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # it may be there: better to say that it cannot be read than to work on another database
    return read_source(str(path)).strip()
