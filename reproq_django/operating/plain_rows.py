"""What subcommands do to rows by models, where the store does not speak the database's SQL: SQLite, on which projects run their own tests.

Nobody runs anything there, so nothing is held, and nobody has to be told.
"""

from collections.abc import Sequence
from datetime import timedelta

from django.core.management.base import CommandError
from django.db.models import Q
from django.utils import timezone

from reproq_django.models import ENDED, QueueControl, RunState, TaskRun, Worker
from reproq_supervisor.settings.units import parse_duration


def pause(alias: str, queue: str, reason: str) -> None:
    """Let nobody claim from *queue*."""
    values = {"paused": True, "paused_at": timezone.now(), "reason": reason or None}
    QueueControl.objects.using(alias).update_or_create(queue_name=queue, defaults=values)


def resume(alias: str, queue: str) -> None:
    """Let *queue* go on."""
    QueueControl.objects.using(alias).filter(queue_name=queue).update(paused=False, paused_at=None, reason=None)


def cancel(alias: str, run: int) -> None:
    """Cancel a run that waits.

    Raises:
      CommandError: there is none that could be cancelled.
    """
    waiting = TaskRun.objects.using(alias).filter(pk=run, status__in=(RunState.READY, RunState.WAITING))
    if not waiting.update(status=RunState.CANCELLED, finished_at=timezone.now(), cancel_requested=True):
        raise CommandError(f"task {run}: expected a task that waits, found none with this id")


def prune(alias: str, statuses: Sequence[str], older_than: str, field: str, limit: int, *, dry: bool) -> int:
    """Delete runs that ended so long ago, the oldest ids first; return how many."""
    ended = [str(state) for state in ENDED]
    unknown = set(statuses) - set(ended)
    if unknown:
        raise CommandError(f"--statuses: expected some of {', '.join(ended)}, got {', '.join(sorted(unknown))}", returncode=2)
    old = Q(**{f"{field}__lte": timezone.now() - _age(older_than)}, status__in=list(statuses))
    found = list(TaskRun.objects.using(alias).filter(old).order_by("pk").values_list("pk", flat=True)[: limit or None])
    if not dry:
        TaskRun.objects.using(alias).filter(pk__in=found).delete()
    return len(found)


def prune_workers(alias: str, older_than: str, *, dry: bool) -> int:
    """Forget workers that were not seen for so long; return how many."""
    found = Worker.objects.using(alias).filter(last_seen_at__lte=timezone.now() - _age(older_than))
    return found.count() if dry else int(found.delete()[0])


def _age(text: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise CommandError(f"--older-than: expected a duration such as 7d, got {text!r}", returncode=2) from error
