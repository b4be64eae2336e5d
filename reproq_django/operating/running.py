"""Subcommands that run tasks, or prepare a machine to."""

import os
from argparse import ArgumentParser

import click
from django.core.management.base import CommandError

from reproq_django.operating.subcommand import Options, Out, Subcommand, database_flag
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.contract.words import FLAGS
from reproq_supervisor.settings.masking import mask_text
from reproq_supervisor.settings.problems import ConfigError

# The database is the project's, and its password no argument.
_NOT_HERE = ("dsn",)


def worker_flags(parser: ArgumentParser) -> None:
    """Add every flag of the older worker, for `worker` and for the unit that starts it."""
    for word in FLAGS:
        if word.name not in _NOT_HERE:
            notes = [each for each in (f"default {word.default}" if word.default else "", word.env or "") if each]
            about = f"{word.about} ({'; '.join(notes)})" if notes else word.about
            parser.add_argument(f"--{word.name}", metavar=word.kind.upper(), help=about.replace("%", "%%"))


def given_flags(options: Options) -> dict[str, str]:
    """Return those that were given, by name."""
    found = {word.name: options.get(word.name.replace("-", "_")) for word in FLAGS if word.name not in _NOT_HERE}
    if options.get("queue") and not found.get("queues"):
        found["queues"] = options["queue"]
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _worker_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="supervisor.yaml, or the older worker's reproq.yaml or reproq.toml.")
    parser.add_argument("--queue", metavar="NAME", help="Older name of --queues.")
    worker_flags(parser)
    database_flag(parser)


def _worker(options: Options, out: Out) -> None:
    from reproq_django.operating.worker import plan_worker, start_worker

    try:
        plan = plan_worker(given_flags(options), config=options["config"], alias=options["database"], environ=os.environ)
        for line in plan.advice:
            out.note(f"advice: {mask_text(line)}")
        start_worker(plan)
    except click.ClickException as error:
        raise CommandError(error.format_message()) from error
    except (ReproqError, ConfigError) as error:
        raise CommandError(mask_text(str(error))) from error


def _systemd_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--user", metavar="NAME", help="Account of the daemon; default: whoever called sudo, else you.")
    parser.add_argument("--group", metavar="NAME", help="Its group; default: the user's own.")
    parser.add_argument("--config", metavar="FILE", help="For the worker: supervisor.yaml, reproq.yaml or reproq.toml.")
    worker_flags(parser)
    parser.add_argument("--env-file", metavar="FILE", help="File with NAME=value lines for the environment; the place for secrets.")
    parser.add_argument("--output", metavar="FOLDER", default=".", help="Where to write the units (here).")
    parser.add_argument("--force", action="store_true", help="Replace files that exist.")
    parser.add_argument("--schedule", action="store_true", help="Also a timer that fires schedules, for a worker that does not.")
    parser.add_argument("--schedule-on-calendar", default="*-*-* *:*:00", metavar="WHEN", help="When it does (every minute).")
    database_flag(parser)


def _systemd(options: Options, out: Out) -> None:
    from reproq_django.operating.units import write_units

    for path in write_units(options, out):
        out.line(f"{path}: written")


SUBCOMMANDS = {
    "worker": Subcommand("Run tasks: becomes the supervisor.", _worker_flags, _worker),
    "systemd": Subcommand("Write the unit files for this project.", _systemd_flags, _systemd),
}
