"""`manage.py reproq_init_executor`: a file to start an executor of one's own from, for `python_bin` and `executor_module`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from reproq_supervisor.cli.new_file import write_new
from reproq_supervisor.core.errors import ReproqError

_STUB = '''"""Runs one task in a fresh interpreter: what is written here happens before Django is set up."""

import sys

from reproq_supervisor.executor.program import main

if __name__ == "__main__":
    sys.exit(main())
'''


class Command(BaseCommand):
    """Writes the file."""

    help = "Write a module to start an executor of your own from."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--path", default="executor_stub.py", metavar="FILE", help="File to write (executor_stub.py).")
        parser.add_argument("--force", action="store_true", help="Replace a file that exists.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            write_new(Path(options["path"]), _STUB, replace=options["force"])
        except ReproqError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{options['path']}: written; name it by executor_module, or by exec.command of a pool")
