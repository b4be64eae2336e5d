"""`version`: what to write into a bug report."""

import platform

import click

import reproq_supervisor
from reproq_supervisor.cli.options import Options, common_options, example


@click.command(epilog=example("reproq-supervisor version --json"))
@common_options
def version(options: Options) -> None:
    """Show the versions of program and Python."""
    facts = {
        "version": reproq_supervisor.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if options.output.as_json:
        options.output.show_json(facts)
    else:
        options.output.line(f"reproq-supervisor {facts['version']} (Python {facts['python']}, {facts['platform']})")
