"""Which database a client means: what it is told, else what the commands would take."""

import os


def find_database(dsn: str | None) -> str:
    """Return the libpq URL.

    That is *dsn*; else DATABASE_URL; else, as for every command, what systemd, the running daemon and the configuration file say
    (REPROQ_CONFIG, or a usual one in the working directory).

    Raises:
      ReproqError: nothing says it, or the embedded database is meant and no daemon runs it.
    """
    if named := dsn or os.environ.get("DATABASE_URL"):
        return named
    from reproq_supervisor.cli.database import find_dsn  # a tenth of a second that others need not pay
    from reproq_supervisor.cli.options import Options
    from reproq_supervisor.cli.output import Output

    return find_dsn(Options(os.environ.get("REPROQ_CONFIG"), None, Output()))
