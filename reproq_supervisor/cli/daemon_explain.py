"""`explain`: why a pool is as it is."""

import click

from reproq_supervisor.cli.control import ask
from reproq_supervisor.cli.options import Options, common_options, example


@click.command(epilog=example("reproq-supervisor explain mail"))
@click.argument("pool", metavar="POOL")
@common_options
def explain(options: Options, pool: str) -> None:
    """Say why a pool is as it is."""
    answer = ask(options, "explain", pool=pool)
    if options.output.as_json:
        options.output.show_json({"ok": True, **answer})
        return
    for line in answer["lines"]:
        options.output.line(line)
