"""Subcommands around schedules."""

from argparse import ArgumentParser

from django.core.management.base import CommandError

from reproq_django.operating.program import flags, run_program
from reproq_django.operating.subcommand import Options, Out, Subcommand, database_flag


def _beat_flags(parser: ArgumentParser) -> None:
    _schedule_flags(parser)
    parser.add_argument("--once", action="store_true", help="Fire what is due now, and end.")


def _schedule_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="Accepted: nothing of it concerns schedules.")
    parser.add_argument("--interval", default="1s", metavar="DURATION", help="Between two looks for changes (1s).")
    database_flag(parser)


def _beat(options: Options, out: Out) -> None:
    run_program(out, options["database"], "beat", *flags(interval=options["interval"], once=options["once"]))


def _schedule(options: Options, out: Out) -> None:
    run_program(out, options["database"], "beat", "--once")


def _pg_cron_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--install", action="store_true", help="Make a job for every enabled schedule (the default).")
    parser.add_argument("--remove", action="store_true", help="Remove our jobs.")
    parser.add_argument("--prefix", default="reproq_periodic", metavar="NAME", help="Our jobs are called PREFIX_SCHEDULE.")
    parser.add_argument("--dry-run", action="store_true", help="Only say what would be done.")
    parser.add_argument("--if-supported", action="store_true", help="Where the server has no pg_cron, do nothing and succeed.")
    database_flag(parser)


def _pg_cron(options: Options, out: Out) -> None:
    if options["install"] and options["remove"]:
        raise CommandError("--install: expected no --remove beside it")
    chosen = {name: options[name] for name in ("remove", "prefix", "dry_run", "if_supported")}
    run_program(out, options["database"], "pg-cron", *flags(**chosen))


SUBCOMMANDS = {
    "beat": Subcommand("Fire schedules without a supervisor.", _beat_flags, _beat),
    "schedule": Subcommand("Fire what is due now, and end: for a timer.", _schedule_flags, _schedule),
    "pg-cron": Subcommand("Let pg_cron fire the schedules.", _pg_cron_flags, _pg_cron),
}
