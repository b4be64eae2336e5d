"""`reclaim`: expired leases, now."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.operations.bulk import in_batches, summary
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_duration, rough_age

if TYPE_CHECKING:
    from reproq_supervisor.store.reclaiming import ExpiredLease

_COUNTED = {
    "requeued": "requeued",
    "failed": "failed: no attempt was left, or --action fail",
    "cancelled": "cancelled, as somebody had asked",
    "renewed": "left: they are held again, or have ended meanwhile",
    "locked": "left: somebody else has them locked; the keeper comes back to them",
    "refused": "left: PostgreSQL refuses to end them, the server's log says why",
}


@click.command(epilog=example("reproq-supervisor reclaim --dry-run", "reproq-supervisor reclaim --older-than 10m --action fail"))
@click.option("--action", type=click.Choice(["requeue", "fail"]), default="requeue", show_default=True, help="What becomes of the tasks.")
@click.option(
    "--older-than", "older_s", metavar="DURATION", callback=as_duration, default="0s", show_default=True, help="Expired so long ago."
)
@click.option("--limit", metavar="N", type=click.IntRange(0), default=0, help="No more than that many, the oldest first; 0: all.")
@click.option("--include-null-lease", is_flag=True, help="Accepted: a running task without a lease counts as expired anyway.")
@click.option("--dry-run", is_flag=True, help="Say which it would be; change nothing.")
@common_options
def reclaim(options: Options, action: str, older_s: float, limit: int, include_null_lease: bool, dry_run: bool) -> int:
    """Take back tasks whose lease has expired.

    A requeued task has used up an attempt, with an error `lease_expiry`, and fails when none is left; the keeper of a running daemon does
    the same every few seconds. Each task is dealt with on its own. Exit code 1 when one was locked or refused.
    """
    from reproq_supervisor.store import reclaiming as store

    older_s = min(older_s, 1e9)
    with open_database(options) as connection:
        leases = store.expired_leases(connection, older_s, limit or None)
        if dry_run:
            _tell_plan(options, leases)
            return 0
        by_run = {lease.result_id: lease for lease in leases}
        outcomes = dict(
            in_batches(
                list(by_run),
                "reclaiming",
                lambda batch: store.reclaim(connection, [by_run[run] for run in batch], older_s, store.ReclaimAction(action)).items(),
            )
        )
    counts = Counter(map(str, outcomes.values()))
    if options.output.as_json:
        tasks = [{"id": run, "outcome": outcome} for run, outcome in outcomes.items()]
        options.output.show_json({"ok": not _is_bad(counts), "counts": dict(counts), "tasks": tasks})
    else:
        for line in summary(counts, _COUNTED) or ["no expired leases"]:
            options.output.line(line)
        for run, outcome in outcomes.items():
            if outcome in (store.ReclaimOutcome.LOCKED, store.ReclaimOutcome.REFUSED):
                options.output.line(f"  {run} {outcome}", style="red")
    return 1 if _is_bad(counts) else 0


def _is_bad(counts: Counter[str]) -> bool:
    return bool(counts["locked"] or counts["refused"])


def _tell_plan(options: Options, leases: "list[ExpiredLease]") -> None:
    if options.output.as_json:
        tasks = [{"id": lease.result_id, "leased_by": lease.leased_by, "expired_s_ago": round(lease.ago_s, 3)} for lease in leases]
        options.output.show_json({"ok": True, "dry_run": True, "tasks": tasks})
        return
    rows = [(lease.result_id, rough_age(lease.ago_s), lease.leased_by) for lease in leases]
    options.output.table(("id", "expired", "held by"), rows, empty="no expired leases")
