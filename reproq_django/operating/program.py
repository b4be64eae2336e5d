"""Run a command of `reproq-supervisor` in this process, on a database of the project."""

from contextlib import redirect_stderr, redirect_stdout

import click
from django.core.management.base import CommandError

from reproq_django.operating.databases import url_of
from reproq_django.operating.subcommand import Out
from reproq_supervisor.cli.main import program
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.masking import mask_text
from reproq_supervisor.settings.problems import ConfigError


def run_program(out: Out, alias: str | None, *arguments: str, tolerate: int = 0) -> None:
    """Run the command of *arguments* on the database *alias*; no argument of a process shows its URL.

    Args:
      tolerate: an exit code that means as much as 0 here.

    Raises:
      CommandError: it failed; it has said why, or its message does.
    """
    given = [*arguments, "--dsn", url_of(alias)]
    try:
        # Beneath Django's wrappers, which end every write with a new line.
        with redirect_stdout(out.stdout._out), redirect_stderr(out.stderr._out):
            code = program.main(given, prog_name="reproq-supervisor", standalone_mode=False)
    except click.Abort as error:
        raise CommandError("interrupted", returncode=130) from error
    except click.ClickException as error:
        raise CommandError(mask_text(error.format_message()), returncode=error.exit_code) from error
    except (ReproqError, ConfigError) as error:
        raise CommandError(mask_text(str(error))) from error
    if isinstance(code, int) and code not in (0, tolerate):
        raise CommandError(f"{arguments[0]}: not everything was as it should be; it is said above")


def flags(**values: object) -> list[str]:
    """Return flags: `--older-than 7d` for `older_than="7d"`, `--dry-run` for `dry_run=True`, nothing for None, False and ''."""
    found: list[str] = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif value is not None and value is not False and value != "":
            found += [flag, str(value)]
    return found
