"""`prune`: what has ended long ago."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.operations.bulk import progress
from reproq_supervisor.cli.operations.filters import as_statuses
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.core.runs import RunStatus
from reproq_supervisor.settings.units import parse_duration

if TYPE_CHECKING:
    from reproq_supervisor.store.connect import Connection
    from reproq_supervisor.store.pruning import Pruned

_STATUSES = (RunStatus.SUCCESSFUL, RunStatus.FAILED, RunStatus.CANCELLED)
_AGE_S = 7 * 86400.0
_WORKERS_AGE_S = 600.0
_OLDEST_S = 1e10
_FIELDS = ("finished_at", "updated_at", "enqueued_at", "started_at")

Ages = tuple[float | None, dict[RunStatus, float]]


def _as_ages(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Ages:
    """Return the age for all, None when none was given, and those of some statuses: `7d`, `FAILED=30d`."""
    for_all: float | None = None
    of_status: dict[RunStatus, float] = {}
    for each in value:
        words, equals, duration = each.rpartition("=")
        try:
            age_s = min(parse_duration(duration), _OLDEST_S)
        except ValueError:
            wanted = "a duration such as 7d, or one for a status such as FAILED=30d"
            raise click.BadParameter(f"expected {wanted}, got {each!r}", ctx, param) from None
        if equals:
            of_status |= dict.fromkeys(as_statuses(*_STATUSES)(ctx, param, (words,)), age_s)
        else:
            for_all = age_s
    return for_all, of_status


@click.command(
    epilog=example(
        "reproq-supervisor prune --older-than 7d --dry-run",
        "reproq-supervisor prune --older-than 7d --older-than FAILED=30d",
        "reproq-supervisor prune expired",
        "reproq-supervisor prune workers --older-than 10m",
    )
)
@click.argument(
    "what", metavar="[ended|successful|expired|workers]", type=click.Choice(["ended", "successful", "expired", "workers"]), default="ended"
)
@click.option(
    "--older-than",
    "ages",
    metavar="[STATUS=]DURATION",
    multiple=True,
    callback=_as_ages,
    help="By default 7d, for workers 10m. Repeatable.",
)
@click.option("--statuses", metavar="STATUS,…", multiple=True, callback=as_statuses(*_STATUSES), help="Of `ended`; by default all three.")
@click.option("--field", type=click.Choice(_FIELDS), default="finished_at", show_default=True, help="What the age counts from.")
@click.option("--limit", metavar="N", type=click.IntRange(0), default=0, help="About that many at most, the oldest ids first; 0: all.")
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@common_options
def prune(options: Options, what: str, ages: Ages, statuses: tuple[RunStatus, ...], field: str, limit: int, dry_run: bool) -> int:
    """Delete tasks that ended long ago.

    What they printed goes, too, as far as it is on this host.
    `successful` deletes those alone. `expired` deletes what ended and has expired since (`expires_at`), and ends, as failed, what has
    expired and waits. `workers` forgets those that have not been seen for so long. A workflow goes when every task of it may, and never
    while one of them has not ended. Small batches: claims are not held up, and interrupted, the same command goes on.

    Exit code 1 when something was left because it is locked or refused.
    """
    for_all, of_status = ages
    with open_database(options) as connection:
        match what:
            case "workers":
                _prune_workers(options, connection, _WORKERS_AGE_S if for_all is None else for_all, dry=dry_run)
                return 0
            case "expired":
                return _prune_expired(options, connection, limit, dry=dry_run)
            case _:
                chosen = (RunStatus.SUCCESSFUL,) if what == "successful" else statuses or _STATUSES
                ages_s = {status: of_status.get(status, _AGE_S if for_all is None else for_all) for status in chosen}
                return _prune_ended(options, connection, ages_s, field, limit, dry=dry_run)


def _prune_ended(
    options: Options, connection: "Connection", ages_s: Mapping[RunStatus, float], field: str, limit: int, *, dry: bool
) -> int:
    from reproq_supervisor.store import pruning

    tally = _Tally(options, dry=dry)
    tally.take(pruning.prune(connection, ages_s, limit=limit or None, field=field, dry=dry))
    if not limit:
        tally.workflows = pruning.prune_flows(connection, ages_s, field, dry=dry)
    return tally.tell()


def _prune_expired(options: Options, connection: "Connection", limit: int, *, dry: bool) -> int:
    from reproq_supervisor.store import pruning

    tally = _Tally(options, dry=dry)
    # In this order, so that what has just ended is there to be looked at, and a dry run says the same.
    tally.take(pruning.prune_expired(connection, limit=limit or None, dry=dry))
    tally.expired = sum(pruning.expire(connection, dry=dry))
    return tally.tell()


def _prune_workers(options: Options, connection: "Connection", age_s: float, *, dry: bool) -> None:
    from reproq_supervisor.store import pruning

    workers = pruning.prune_workers(connection, age_s, dry=dry)
    if options.output.as_json:
        options.output.show_json({"ok": True, "dry_run": dry, "workers": workers})
    else:
        options.output.line(f"{len(workers)} workers {'would be forgotten' if dry else 'forgotten'}")


class _Tally:
    """Counts what goes, and says it."""

    def __init__(self, options: Options, *, dry: bool) -> None:
        self._output = options.output
        self._dry = dry
        self._counts: Counter[str] = Counter()
        self._spared = self._left = self._files = 0
        self.expired: int | None = None
        self.workflows = 0

    def take(self, batches: "Iterable[Pruned]") -> None:
        """Count each batch, and delete what its tasks printed: the rows are gone, so nobody else will find the files. Or only count."""
        from reproq_supervisor.process.task_logs import count_logs, remove_logs

        with progress("pruning", None, dry=self._dry) as advance:
            for batch in batches:
                self._counts.update(gone.status for gone in batch.gone)
                self._spared += batch.spared
                self._left += batch.left_over
                with_logs = count_logs if self._dry else remove_logs
                self._files += sum(with_logs(gone.result_id, gone.logs_uri) for gone in batch.gone)
                advance(len(batch.gone))

    def tell(self) -> int:
        """Say what went; return the exit code."""
        if self._output.as_json:
            answer = {"ok": not self._left, "dry_run": self._dry, "deleted": dict(sorted(self._counts.items())), "spared": self._spared}
            more = {"left": self._left, "files": self._files, "workflows": self.workflows, "expired": self.expired}
            self._output.show_json({**answer, **more})
            return 1 if self._left else 0
        verb = "would be deleted" if self._dry else "deleted"
        if self.expired:
            self._output.line(f"{self.expired} waiting tasks {'would be ended' if self._dry else 'ended'} as expired")
        for status, count in sorted(self._counts.items()):
            self._output.line(f"{count} {status} {verb}")
        if not self._counts:
            self._output.line("no tasks to delete")
        if self._spared:
            self._output.line(f"{self._spared} spared: others of their workflow stay")
        if self._left:
            self._output.line(f"{self._left} left: locked, or PostgreSQL refuses it and its log says why", style="yellow")
        return 1 if self._left else 0
