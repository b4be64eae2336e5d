"""`worker`: what the older worker was given, as a supervisor with one pool."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import click

from reproq_supervisor.cli.daemon.record import absolute
from reproq_supervisor.cli.daemon.start import Launch, start
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.worker.folders import make_folder
from reproq_supervisor.cli.worker.go_flags import GoCommand, worker_options
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.masking import mask_text
from reproq_supervisor.settings.problems import ConfigError

# glibc gives freed memory back to the system above this many bytes, instead of adapting the limit to what was freed once.
_LOW_MEMORY_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"}


class WorkerFailedError(ReproqError):
    """A worker that could not start; the older one ends with 1 for every reason."""


@click.command(
    cls=GoCommand,
    epilog=example(
        "reproq-supervisor worker --dsn postgres://app@db/app --queues default,mail --concurrency 4",
        "reproq-supervisor worker --config reproq.yaml",
    ),
)
@worker_options
@common_options
def worker(options: Options, **flags: str | None) -> None:
    """Start one pool from the older worker's flags.

    Flags win over the environment, that wins over reproq.yaml or reproq.toml (--config, REPROQ_CONFIG, or here). An empty value is unset.
    LOW_MEMORY_MODE=1 does without the waiting connection (tasks are found by polling) and replaces executors above 256 MiB.
    """
    try:
        _start(options, {name.replace("_", "-"): value for name, value in flags.items() if value})
    except (ReproqError, ConfigError) as error:
        raise WorkerFailedError(str(error)) from error


def _start(options: Options, flags: dict[str, str]) -> None:
    from reproq_supervisor.settings.contract.file import find_file
    from reproq_supervisor.settings.contract.load import load_worker, origin_of
    from reproq_supervisor.settings.contract.translate import is_low_memory

    if options.dsn:
        flags["dsn"] = options.dsn
    path = absolute(find_file(options.config))
    loaded = load_worker(path, flags, os.environ)
    for line in loaded.advice:
        click.echo(f"{click.style('advice:', fg='yellow', bold=True)} {mask_text(line)}", err=True)
    if is_low_memory(os.environ):
        for name, value in _LOW_MEMORY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)  # inherited by all that is started
    places, folders = make_folder(os.environ)
    with ExitStack() as undo:  # undone only where there was no exec
        for folder in folders:
            undo.callback(shutil.rmtree, Path(folder), ignore_errors=True)
        origin = {**origin_of(path, flags), "worker_id": loaded.name}
        hint = f" -c {path}" if path else ""
        start(Launch(loaded.settings, places, path, options.output, origin, temporary_dirs=folders, hint=hint))
