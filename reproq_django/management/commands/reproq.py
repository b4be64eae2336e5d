"""`manage.py reproq SUBCOMMAND`: the operating half of the queue, on the database that the project's settings name."""

from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseFailed

from reproq_django.operating import declared, rows, running, schedules, setup
from reproq_django.operating.subcommand import Out
from reproq_supervisor.settings.masking import mask_text

SUBCOMMANDS = {**setup.SUBCOMMANDS, **running.SUBCOMMANDS, **schedules.SUBCOMMANDS, **declared.SUBCOMMANDS, **rows.SUBCOMMANDS}


class Command(BaseCommand):
    """Finds the subcommand and runs it."""

    help = "Run, look after and set up background tasks."
    # Most of these are for a moment when something is wrong.
    requires_system_checks: list[str] = []
    stealth_options = ("subcommand",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        found = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
        for name, subcommand in SUBCOMMANDS.items():
            inner = found.add_parser(name, help=subcommand.summary, description=subcommand.summary)
            subcommand.add_flags(inner)
            _accept_django_flags(inner)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            SUBCOMMANDS[options["subcommand"]].run(options, Out(self.stdout, self.stderr))
        except DatabaseFailed as error:
            raise CommandError(f"database: {mask_text(' '.join(str(error).split()))}") from error


def _accept_django_flags(parser: ArgumentParser) -> None:
    """Let Django's own flags stand behind a subcommand, too, where people write them; it has read them wherever they are."""
    for flag in ("--settings", "--pythonpath"):
        parser.add_argument(flag, default=SUPPRESS, help=SUPPRESS)
    parser.add_argument("--traceback", action="store_true", default=SUPPRESS, help=SUPPRESS)
