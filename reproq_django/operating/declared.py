"""Subcommands around what a project declares: its schedules, and a task to try the queue with."""

import time
from argparse import ArgumentParser

from django.core.management.base import CommandError

from reproq_django.conf import default_db_alias
from reproq_django.operating.databases import chosen_aliases
from reproq_django.operating.subcommand import Options, Out, Subcommand, database_flag

_MOST = 100_000


def _sync_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--clear-missing", action="store_true", help="Disable what was declared before, and no longer is.")
    database_flag(parser, several=True)


def _sync(options: Options, out: Out) -> None:
    from reproq_django.syncing import sync_recurring

    for chosen in chosen_aliases(options):
        for each in sync_recurring(chosen or default_db_alias(), clear_missing=options["clear_missing"]):
            out.line(f"{each.name}: {each.outcome}")


def _stress_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=100, metavar="N", help=f"How many, at most {_MOST} (100).")
    parser.add_argument("--sleep", type=float, default=0.0, metavar="SECONDS", help="Between two of them.")
    parser.add_argument("--bulk", action="store_true", help="All at once.")


def _stress(options: Options, out: Out) -> None:
    from reproq_django.framework import task_backends
    from reproq_django.tasks import debug_noop_task

    count, sleep_s = options["count"], options["sleep"]
    if not 1 <= count <= _MOST:
        raise CommandError(f"--count: expected 1 to {_MOST}, got {count}")
    began = time.perf_counter()
    if options["bulk"]:
        task_backends[debug_noop_task.backend].bulk_enqueue([(debug_noop_task, (number,), {}) for number in range(count)])
    else:
        for number in range(count):
            debug_noop_task.enqueue(number)
            if sleep_s:
                time.sleep(sleep_s)
    took_s = time.perf_counter() - began
    out.line(f"{count} tasks enqueued in {took_s:.2f} s")


SUBCOMMANDS = {
    "sync-recurring": Subcommand("Bring the schedules that the code declares.", _sync_flags, _sync),
    "stress-test": Subcommand("Enqueue tasks that do nothing.", _stress_flags, _stress),
}
