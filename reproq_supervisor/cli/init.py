"""`init`: a configuration file to start from."""

import os
import tempfile
from pathlib import Path

import click

from reproq_supervisor.cli.options import USUAL_FILES, Options, common_options, example
from reproq_supervisor.core.errors import ReproqError


class FileInTheWayError(ReproqError):
    """There is a file already, and nobody said that it may be replaced."""


@click.command(epilog=example("reproq-supervisor init", "reproq-supervisor init -c config/supervisor.yaml --tasks myapp.tasks"))
@click.option("--tasks", metavar="MODULE", default="myapp.tasks", show_default=True, help="Module with your tasks.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@common_options
def init(options: Options, tasks: str, force: bool) -> None:
    """Write a configuration file to start from."""
    from reproq_supervisor.settings.starter import starter_text

    path = Path(options.config or USUAL_FILES[0])
    try:
        text = starter_text(tasks)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--tasks") from None
    try:
        _write(path, text, replace=force)
    except FileExistsError:
        raise FileInTheWayError(f"{path}: expected no file, found one: give another name by -c, or --force to replace it") from None
    except OSError as error:
        raise ReproqError(f"{path}: expected to write a file: {error.strerror}") from error
    if options.output.as_json:
        options.output.show_json({"ok": True, "path": str(path)})
        return
    options.output.line(f"{path}: written; edit it, then: reproq-supervisor check -c {path}")


def _write(path: Path, text: str, *, replace: bool) -> None:
    """Write the whole file or nothing. The file's own folder is made; one further up that is missing is more likely a slip.

    Raises:
      FileExistsError: there is one, and *replace* is not set.
    """
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
