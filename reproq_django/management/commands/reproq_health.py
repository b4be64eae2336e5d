"""`manage.py reproq_health`: is anybody working, and what failed lately. Exit code 1 when nobody is."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from reproq_django.conf import default_db_alias
from reproq_django.models import RunState, TaskRun, Worker


class Command(BaseCommand):
    """Looks at workers and failures."""

    help = "Say which workers live, and which tasks failed last."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--stale-minutes", type=int, default=2, metavar="N", help="A worker that was not seen for so long is dead (2).")
        parser.add_argument("--recent-limit", type=int, default=5, metavar="N", help="How many failures to show (5).")

    def handle(self, *args: Any, **options: Any) -> None:
        alias = default_db_alias()
        since = timezone.now() - timedelta(minutes=options["stale_minutes"])
        workers = Worker.objects.using(alias)
        alive = workers.filter(last_seen_at__gte=since).count()
        self.stdout.write(f"workers   {alive} alive, {workers.count() - alive} dead")
        # By id: failures are few, and newer ones have larger ids.
        for run in TaskRun.objects.using(alias).filter(status=RunState.FAILED).order_by("-pk")[: max(0, options["recent_limit"])]:
            self.stdout.write(f"failed    {run.pk} {run.task_path}: {(run.last_error or 'no message').partition(chr(10))[0]}")
        if not alive:
            raise CommandError(f"workers: expected one that was seen within {options['stale_minutes']} minutes, found none")
