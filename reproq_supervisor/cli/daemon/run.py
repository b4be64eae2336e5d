"""`run`: from the configuration file to the daemon."""

import os
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.daemon.record import absolute, find_record, is_answering
from reproq_supervisor.cli.daemon.start import DaemonRunsError, Launch, start
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.places import Places, find_places

if TYPE_CHECKING:
    from reproq_supervisor.settings.load import Loaded


@click.command(epilog=example("reproq-supervisor run -c supervisor.yaml", "reproq-supervisor run --dsn postgresql://app@db/app"))
@common_options
def run(options: Options) -> None:
    """Start the supervisor and its pools.

    Runs in the foreground until Ctrl-C or `reproq-supervisor stop`; a second Ctrl-C does not wait for running tasks.
    """
    loaded = options.load()
    _refuse_unprivileged(loaded)
    places = find_places(options.config_path, loaded.settings.control.socket, os.environ)
    _refuse_second(options, places)
    config = f" -c {options.config}" if options.config else ""
    start(Launch(loaded.settings, places, absolute(options.config_path), options.output, {"overrides": options.overrides}, hint=config))


def _refuse_second(options: Options, places: Places) -> None:
    record = find_record(options.config_path, os.environ, workers=False)
    if record is not None and record.answers:
        who = f"pid {record.pid} at {record.control_socket}"
    elif is_answering(str(places.control_socket)):
        who = f"one at {places.control_socket}"
    else:
        return
    raise DaemonRunsError(f"daemon: expected none of this configuration, found {who}; stop it with: reproq-supervisor stop")


def _refuse_unprivileged(loaded: "Loaded") -> None:
    """Refuse what the daemon may not do, with its line, before anything of it is started.

    Raises:
      ConfigError: with every such setting.
    """
    from reproq_supervisor.process.privileges import find_lacking
    from reproq_supervisor.settings.complaints import place_problem
    from reproq_supervisor.settings.problems import ConfigError

    layers = loaded.layers
    problems = [place_problem(lack.path, lack.message, lack.hint, layers) for lack in find_lacking(loaded.settings)]
    if problems:
        raise ConfigError(layers.source, tuple(sorted(problems, key=lambda problem: problem.line or 0)))
