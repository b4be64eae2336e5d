"""Subcommands that look at runs, queues and workers, or change them."""

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from reproq_django.conf import default_db_alias
from reproq_django.operating import plain_rows
from reproq_django.operating.databases import chosen_aliases, require_known
from reproq_django.operating.program import flags, run_program
from reproq_django.operating.subcommand import Options, Out, Subcommand, database_flag
from reproq_django.routing import is_postgres, parse_result_id, queue_aliases
from reproq_supervisor.core.words import counted


def _several(options: Options, out: Out, *arguments: str, tolerate: int = 0) -> None:
    """Run a command of the program on every chosen database, and say which it is where there are several."""
    aliases = chosen_aliases(options)
    for alias in aliases:
        if len(aliases) > 1:
            out.line(f"database {alias}")
        run_program(out, alias, *arguments, tolerate=tolerate)


def _plain_alias(alias: str | None) -> str | None:
    """Return the database's alias where rows are all there is, None where the program's own commands do the work."""
    if alias is None and os.environ.get("DATABASE_URL"):
        return None
    known = require_known(alias or default_db_alias())
    return None if is_postgres(known) else known


def _run_id(options: Options) -> tuple[str | None, str]:
    """Return the database and the number of `--id`, which may name its database."""
    alias, number = parse_result_id(options["id"])
    if number is None:
        raise CommandError(f"--id: expected the id of a result, such as 42 or {alias}:42, got {options['id']!r}")
    named = alias if str(options["id"]).partition(":")[1] or len(queue_aliases()) > 1 else None
    return options.get("database") or named, str(number)


# -- stats ------------------------------------------------------------------------------------------------------------


def _stats_flags(parser: ArgumentParser) -> None:
    database_flag(parser, several=True)
    parser.add_argument("--json", action="store_true", help="Answer in JSON, as the view `stats` does.")


def _stats(options: Options, out: Out) -> None:
    from reproq_django.stats import stats_of

    aliases = [alias for alias in chosen_aliases(options) if alias is not None] or None
    found = stats_of(aliases)
    if options["json"]:
        import json

        from django.core.serializers.json import DjangoJSONEncoder

        out.line(json.dumps(found, cls=DjangoJSONEncoder))
        return
    out.line("Tasks")
    for status, count in found["tasks"].items():
        out.line(f"  {status:<12}{count}")
    for queue, counts in found["queues"].items():
        out.line(f"Queue {queue}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    for control in found["queue_controls"]:
        if control["paused"]:
            out.line(f"Queue {control['queue_name']} is paused: {control['reason'] or 'no reason given'}")
    health = found["worker_health"]
    out.line(f"Workers: {health['alive']} alive, {counted(health['dead'], 'dead one')}")
    for worker in found["workers"]:
        out.line(f"  {worker['worker_id']} on {worker['hostname']}, {worker['concurrency']} at once, seen {worker['last_seen_at']}")


# -- queues -----------------------------------------------------------------------------------------------------------


def _queue_flags(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE")
    database_flag(parser)


def _pause_flags(parser: ArgumentParser) -> None:
    _queue_flags(parser)
    parser.add_argument("--reason", metavar="TEXT", default="", help="Shown by stats and in the admin.")


def _queue_alias(options: Options) -> str | None:
    from reproq_django.routing import resolve_queue_db

    # Where queues are in several databases, only one of them is asked for this one.
    return options.get("database") or (resolve_queue_db(options["queue"]) if len(queue_aliases()) > 1 else None)


def _pause(options: Options, out: Out) -> None:
    if (plain := _plain_alias(_queue_alias(options))) is not None:
        plain_rows.pause(plain, options["queue"], options["reason"])
        return
    run_program(out, _queue_alias(options), "queue", "pause", options["queue"], *flags(reason=options["reason"]))


def _resume(options: Options, out: Out) -> None:
    if (plain := _plain_alias(_queue_alias(options))) is not None:
        plain_rows.resume(plain, options["queue"])
        return
    # A queue that was not paused is as it should be.
    run_program(out, _queue_alias(options), "queue", "resume", options["queue"], tolerate=1)


# -- runs -------------------------------------------------------------------------------------------------------------


def _id_flag(parser: ArgumentParser) -> None:
    parser.add_argument("--id", required=True, metavar="ID", help="Id of a result, as enqueue returned it.")
    database_flag(parser)


def _logs_flags(parser: ArgumentParser) -> None:
    _id_flag(parser)
    parser.add_argument("--tail", type=int, default=200, metavar="N", help="Only the last N lines (200).")
    parser.add_argument("--max-bytes", type=int, default=1_000_000, metavar="N", help="Only the last N bytes (1000000).")
    parser.add_argument("--show-path", action="store_true", help="Say where it is instead.")


def _logs(options: Options, out: Out) -> None:
    alias, number = _run_id(options)
    run_program(out, alias, "logs", number, *flags(**{name: options[name] for name in ("tail", "max_bytes", "show_path")}))


def _cancel(options: Options, out: Out) -> None:
    alias, number = _run_id(options)
    if (plain := _plain_alias(alias)) is not None:
        plain_rows.cancel(plain, int(number))
        return
    run_program(out, alias, "cancel", number)


def _reclaim_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--action", choices=("requeue", "fail"), default="requeue", help="What becomes of the tasks (requeue).")
    parser.add_argument("--older-than", default="0s", metavar="DURATION", help="Expired so long ago (0s).")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="No more than N; 0: all.")
    parser.add_argument("--dry-run", action="store_true", help="Only say which it would be.")
    parser.add_argument("--include-null-lease", action="store_true", help="Accepted: such tasks count as expired anyway.")
    database_flag(parser, several=True)


def _reclaim(options: Options, out: Out) -> None:
    chosen = {name: options[name] for name in ("action", "older_than", "limit", "dry_run", "include_null_lease")}
    _several(options, out, "reclaim", *flags(**chosen))


# -- prune ------------------------------------------------------------------------------------------------------------


def _prune_flags_of(older_than: str, *, limit: bool = True) -> Any:
    def add(parser: ArgumentParser) -> None:
        parser.add_argument("--older-than", default=older_than, metavar="DURATION", help=f"By default {older_than}.")
        if limit:
            parser.add_argument("--limit", type=int, default=0, metavar="N", help="About N at most; 0: all.")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would go.")
        database_flag(parser, several=True)

    return add


def _prune_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--statuses", default="SUCCESSFUL,FAILED,CANCELLED", metavar="STATUS,…")
    parser.add_argument(
        "--field",
        default="finished_at",
        choices=("finished_at", "updated_at", "enqueued_at", "started_at"),
        help="Where the age counts from.",
    )
    _prune_flags_of("7d")(parser)


def _prune_of(kind: str, *names: str) -> Any:
    def run(options: Options, out: Out) -> None:
        if (plain := _plain_alias(chosen_aliases(options)[0])) is not None:
            out.line(f"{_prune_plain(kind, plain, options)} {'would be deleted' if options['dry_run'] else 'deleted'}")
            return
        _several(options, out, "prune", kind, *flags(**{name: options[name] for name in (*names, "older_than", "dry_run")}))

    return run


def _prune_plain(kind: str, alias: str, options: Options) -> int:
    age, dry = options["older_than"], options["dry_run"]
    if kind == "workers":
        return plain_rows.prune_workers(alias, age, dry=dry)
    statuses = options.get("statuses", "SUCCESSFUL").split(",")
    return plain_rows.prune(alias, statuses, age, options.get("field", "finished_at"), options["limit"], dry=dry)


SUBCOMMANDS = {
    "stats": Subcommand("Count tasks by status and queue, and list workers.", _stats_flags, _stats),
    "status": Subcommand("The same as stats.", _stats_flags, _stats),
    "pause-queue": Subcommand("Let nobody claim from a queue; what runs goes on.", _pause_flags, _pause),
    "resume-queue": Subcommand("Let a paused queue go on.", _queue_flags, _resume),
    "logs": Subcommand("Show what a task printed.", _logs_flags, _logs),
    "cancel": Subcommand("Cancel a waiting or running task.", _id_flag, _cancel),
    "reclaim": Subcommand("Take back tasks whose lease has expired.", _reclaim_flags, _reclaim),
    "prune-workers": Subcommand("Forget workers that are gone.", _prune_flags_of("10m", limit=False), _prune_of("workers")),
    "prune-successful": Subcommand("Delete successful tasks.", _prune_flags_of("7d"), _prune_of("successful", "limit")),
    "prune": Subcommand("Delete tasks that ended long ago.", _prune_flags, _prune_of("ended", "statuses", "field", "limit")),
}
