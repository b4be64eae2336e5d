"""`manage.py reproq_check`: the older name of `reproq check`."""

from typing import Any

from django.core.management.base import BaseCommand

from reproq_django.operating.setup import SUBCOMMANDS
from reproq_django.operating.subcommand import Out


class Command(BaseCommand):
    """Sees that program, database and tables are there."""

    help = "See that program, database and tables are there."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        SUBCOMMANDS["check"].run(options, Out(self.stdout, self.stderr))
