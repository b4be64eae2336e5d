"""`config show`: what the daemon would run with, and who said so."""

import json
from dataclasses import asdict

import click

from reproq_supervisor.cli.options import Options, common_options, example


@click.group()
def config() -> None:
    """Show the configuration and where its values come from."""


@config.command(epilog=example("reproq-supervisor config show --origin", "reproq-supervisor config show --json"))
@click.option("--origin", is_flag=True, help="Say where each value comes from: default, file and line, environment, flag.")
@common_options
def show(options: Options, origin: bool) -> None:
    """Show every setting with defaults filled in; secrets are masked."""
    from reproq_supervisor.settings.present import as_data, as_yaml, with_origins

    loaded, output = options.load(), options.output
    if origin:
        shown = list(with_origins(loaded.settings, loaded.layers, human=not output.as_json))
        if output.as_json:
            output.show_json([asdict(each) for each in shown])
        else:
            output.table(["key", "value", "origin"], [(each.key, _text(each.value), each.origin) for each in shown])
    elif output.as_json:
        output.show_json(as_data(loaded.settings, human=False))
    else:
        click.echo(as_yaml(loaded.settings), nl=False)


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
