"""The options of every command: `-c/--config`, `--dsn`, `--json`; and what they lead to."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reproq_supervisor.cli.output import Output

if TYPE_CHECKING:
    from reproq_supervisor.settings.load import Loaded

# Looked for in the working directory when neither -c nor REPROQ_CONFIG names a file.
USUAL_FILES = ("supervisor.yaml", "config/supervisor.yaml")

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Options:
    """What a command was given.

    Attributes:
      config: the file that -c or REPROQ_CONFIG names.
      dsn: --dsn; None when it was not given.
      output: where the answer goes.
    """

    config: str | None
    dsn: str | None
    output: Output

    @property
    def config_path(self) -> str | None:
        """The configuration file: the named one, or a usual one that is here; None when there is none."""
        return self.config or next((name for name in USUAL_FILES if Path(name).is_file()), None)

    @property
    def overrides(self) -> dict[str, Any]:
        """What the flags put over the file, by dotted key; `run` keeps it for reloads."""
        return {} if self.dsn is None else {"database": self.dsn}

    def load(self) -> "Loaded":
        """Load the configuration; without a file that is the defaults.

        Raises:
          ConfigError: with every problem.
        """
        from reproq_supervisor.settings.load import load  # a tenth of a second that --help need not pay

        return load(self.config_path, overrides=self.overrides)

    def require_config(self) -> str:
        """Return the configuration file.

        Raises:
          ConfigError: there is none.
        """
        from reproq_supervisor.settings.problems import ConfigError, Problem

        if (found := self.config_path) is None:
            hint = "reproq-supervisor init writes one"
            message = f"expected -c FILE, REPROQ_CONFIG or a file {' or '.join(USUAL_FILES)} here, found none"
            raise ConfigError("configuration", (Problem("", message, hint=hint),))
        return found

    def named_database(self) -> str | None:
        """Return what was said for this command, over any file: --dsn, DATABASE_URL, the credential `dsn`; None when nothing was.

        Raises:
          ConfigError: the credential cannot be read.
        """
        from reproq_supervisor.settings.credential import read_dsn

        return self.dsn or os.environ.get("DATABASE_URL") or read_dsn(os.environ)

    def database(self) -> str:
        """Return the libpq URL of the database, or `embedded`: what was said for this command, else the file's, else the embedded one.

        The file, which may also be that of a worker, is read only when it decides: a mistake in it does not stop a command that was told
        its database.

        Raises:
          ConfigError: the file decides and is wrong.
        """
        if named := self.named_database():
            return named
        from reproq_supervisor.settings.contract.load import dsn_of_file, is_worker_file

        if (path := self.config_path) is not None and is_worker_file(path):
            return dsn_of_file(path)
        return self.load().settings.database


def common_options(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command the common options; it takes them as the keyword argument `options`."""

    @click.option("-c", "--config", "config", metavar="FILE", envvar="REPROQ_CONFIG", help="Configuration file.")
    @click.option("--dsn", metavar="URL", help="Database, over DATABASE_URL and the file; or: embedded.")
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(function)
    def wrapper(*args: Any, config: str | None, dsn: str | None, as_json: bool, **kwargs: Any) -> R:
        return function(*args, options=Options(config, dsn, Output(as_json)), **kwargs)

    return wrapper


def example(*lines: str) -> str:
    """Return the epilog of a command's help; click must not refill its lines."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
