"""`init`: a configuration file to start from."""

from pathlib import Path

import click

from reproq_supervisor.cli.new_file import write_new
from reproq_supervisor.cli.options import USUAL_FILES, Options, common_options, example


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
    write_new(path, text, replace=force)
    if options.output.as_json:
        options.output.show_json({"ok": True, "path": str(path)})
        return
    options.output.line(f"{path}: written; edit it, then: reproq-supervisor check -c {path}")
