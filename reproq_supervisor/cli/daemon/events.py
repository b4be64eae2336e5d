"""`events`: what happens in the daemon."""

import json
from typing import Any

import click

from reproq_supervisor.cli.daemon.control import listen
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.output import Output

_COLOURS = {"warning": "yellow", "error": "red"}


@click.command(epilog=example("reproq-supervisor events", "reproq-supervisor events --no-follow --json"))
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with what happens from now on.")
@common_options
def events(options: Options, follow: bool) -> None:
    """Follow what happens.

    Begins with the latest events that the daemon remembers, and goes on until Ctrl-C. With --json every event is an object on a line of its
    own.
    """
    try:
        for event in listen(options, "events", follow=follow):
            if options.output.as_json:
                options.output.show_json(event)
            else:
                _show(options.output, event)
    except KeyboardInterrupt:
        return  # the usual way to end it


def _show(output: Output, event: dict[str, Any]) -> None:
    fields = dict(event)
    at, level, name = fields.pop("at", ""), fields.pop("level", "info"), fields.pop("name", "?")
    pairs = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items() if value is not None)
    output.line(f"{at} {name} {pairs}".strip(), style=_COLOURS.get(level))


def _quoted(text: str) -> str:
    """Keep a value of several words together."""
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
