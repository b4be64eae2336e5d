"""`systemd`: the units of a project, hardened as those of `reproq-supervisor systemd`.

    reproq-worker-PROJECT.service       becomes the supervisor
    reproq-beat-PROJECT.service         only where the supervisor does not fire schedules itself
    reproq-schedule-PROJECT.service     with --schedule: fires what is due and ends, by its timer

No secret is in a unit, which everybody can read: they belong into the file that --env-file names.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from django.core.management.base import CommandError

from reproq_django.operating.running import given_flags
from reproq_django.operating.subcommand import Options, Out
from reproq_django.operating.worker import plan_worker
from reproq_supervisor.cli.new_file import write_new
from reproq_supervisor.cli.systemd.directives import OLDEST, Directive
from reproq_supervisor.cli.systemd.hardening import harden
from reproq_supervisor.cli.systemd.machine import (
    NoSuchAccountError,
    find_account,
    find_installed,
    find_python,
    find_systemd,
    service_environment,
)
from reproq_supervisor.cli.systemd.needs import Needs, find_needs
from reproq_supervisor.cli.systemd.quoting import UnitTextError, command_line, plain
from reproq_supervisor.cli.systemd.site import Site
from reproq_supervisor.cli.systemd.unit import render_unit
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.masking import is_secret

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def write_units(options: Options, out: Out) -> list[Path]:
    """Write the units, and return their files.

    Raises:
      CommandError: why nothing, or not all, was written.
    """
    flags = given_flags(options)
    for name in flags:
        if is_secret(name):
            variable = name.upper().replace("-", "_")
            raise CommandError(f"--{name}: everybody can read a unit; put {variable} into a file, and name that by --env-file")
    folder = Path(options["output"])
    try:
        texts = dict(_render(options, flags))
        for name, text in texts.items():
            write_new(folder / name, text, replace=options["force"])
    except (ReproqError, NoSuchAccountError, UnitTextError) as error:
        raise CommandError(str(error)) from error
    out.note(f"next: copy them to /etc/systemd/system, then: systemctl daemon-reload && systemctl enable --now {next(iter(texts))}")
    return [folder / name for name in texts]


def _render(options: Options, flags: dict[str, str]) -> Iterator[tuple[str, str]]:
    env_file = Path(options["env_file"]).absolute() if options["env_file"] else None
    environ = service_environment(env_file)
    plan = plan_worker(flags, config=options["config"], alias=options["database"], environ=environ)
    account = find_account(options["user"], options["group"], os.environ)
    directory = Path.cwd()
    project = _NO_NAME.sub("-", directory.name) or "project"
    script = Path(sys.argv[0]).absolute()
    manage: tuple[str | Path, ...] = (script, "reproq", *_settings_flag(environ))
    where = [f"--database={options['database']}"] if options["database"] else []
    file = [f"--config={Path(plan.path)}"] if plan.path else []
    start: tuple[str | Path, ...] = (*manage, "worker", *file, *(f"--{name}={value}" for name, value in flags.items()), *where)
    site = Site(
        user=account.user,
        group=account.group,
        is_root=account.is_root,
        python=find_python(),
        installed=find_installed(),
        directory=directory,
        config=script,
        systemd=max(find_systemd() or OLDEST, OLDEST),
        instance=project,
        env_file=env_file,
        start=start,
        base="reproq-worker",
    )
    needs = find_needs(plan.settings, site)
    yield f"{site.name}.service", render_unit(plan.settings, site, needs)
    if not plan.settings.keeper.beat and (environ.get("REPROQ_SCHEDULER_MODE") or "beat") == "beat" and not options["schedule"]:
        yield f"reproq-beat-{project}.service", _small_unit(site, needs, "Schedules", (*manage, "beat", *where), forever=True)
    if options["schedule"]:
        yield f"reproq-schedule-{project}.service", _small_unit(site, needs, "Due schedules", (*manage, "schedule", *where), forever=False)
        yield f"reproq-schedule-{project}.timer", _timer(project, options["schedule_on_calendar"])


def _settings_flag(environ: Mapping[str, str]) -> list[str]:
    """Return the flag that names this project's settings: manage.py has a default of its own, which may be those of development."""
    module = os.environ.get("DJANGO_SETTINGS_MODULE")
    return [f"--settings={module}"] if module and environ.get("DJANGO_SETTINGS_MODULE") == module else []  # else the file says it


def _small_unit(site: Site, needs: Needs, title: str, start: tuple[str | Path, ...], *, forever: bool) -> str:
    sections = {
        "Unit": [Directive("Description", f"{title} of {site.instance}"), Directive("After", "network-online.target postgresql.service")],
        "Service": [*_process(site, start, forever=forever), *harden(needs)],
        "Install": [Directive("WantedBy", "multi-user.target")] if forever else [],
    }
    return _text(sections, site.systemd)


def _process(site: Site, start: tuple[str | Path, ...], *, forever: bool) -> Iterator[Directive]:
    yield Directive("Type", "exec" if forever else "oneshot")
    yield Directive("User", plain(site.user))
    yield Directive("Group", plain(site.group))
    yield Directive("WorkingDirectory", plain(site.directory))
    if site.env_file is not None:
        yield Directive("EnvironmentFile", plain(site.env_file))
    yield Directive("ExecStart", command_line(site.python, *start))
    if forever:
        yield Directive("Restart", "always")
        yield Directive("RestartSec", "5s")
    yield Directive("TimeoutStopSec", "30s")


def _timer(project: str, when: str) -> str:
    sections = {
        "Unit": [Directive("Description", f"When schedules of {project} are looked at")],
        "Timer": [Directive("OnCalendar", plain(when)), Directive("Persistent", "true")],
        "Install": [Directive("WantedBy", "timers.target")],
    }
    return _text(sections, OLDEST)


def _text(sections: dict[str, list[Directive]], systemd: int) -> str:
    return "\n".join(
        f"[{title}]\n" + "".join(each.render() for each in directives if each.is_known_to(systemd))
        for title, directives in sections.items()
        if directives
    )
