"""`worker`: from a project's settings to a supervisor of the same pid, without Django in it.

    --config FILE, or one that is here        ours: as `reproq-supervisor run`; the older worker's: as `reproq-supervisor worker`
    settings.REPROQ                           the keys of our file; its pools
    else, or with --queues or --concurrency   one pool over the queues of the project's backends

What the file or REPROQ leave open comes from the project: the database, the settings module, what may run, what is imported once. All of it
travels in memory (see `reproq_supervisor.cli.daemon.start`): no password is in an argument, and a reload still knows it. Settings of Django
are read once: after a change of them the service is restarted.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import CommandError

from reproq_django.conf import default_db_alias
from reproq_django.framework import DEFAULT_TASK_QUEUE_NAME, task_backends
from reproq_django.operating.databases import url_of
from reproq_django.operating.discovery import allowed_prefixes, find_tasks, task_modules
from reproq_django.routing import resolve_queue_db
from reproq_supervisor.cli.daemon.record import absolute
from reproq_supervisor.cli.daemon.start import Launch, start
from reproq_supervisor.cli.options import USUAL_FILES
from reproq_supervisor.cli.output import Output
from reproq_supervisor.cli.places import find_places
from reproq_supervisor.cli.worker.folders import make_folder
from reproq_supervisor.settings.contract import file as contract_file
from reproq_supervisor.settings.contract.load import dsn_of_file, is_worker_file, load_worker, origin_of
from reproq_supervisor.settings.contract.translate import translate
from reproq_supervisor.settings.contract.values import settle
from reproq_supervisor.settings.load import load
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.problems import ConfigError

_GROUPS = ("app", "keeper", "web", "control", "store", "logs")
_ONE_POOL = ("queues", "concurrency")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started.

    Attributes:
      path: the file that it comes from, None for the project's settings.
      origin: what a reload needs to come to it again.
      is_single: there is one daemon of this file; of all others any number may run in one place.
    """

    settings: Settings
    path: str | None
    origin: dict[str, Any]
    is_single: bool = False
    advice: tuple[str, ...] = field(default=())


def plan_worker(flags: Mapping[str, str], *, config: str | None, alias: str | None, environ: Mapping[str, str]) -> Plan:
    """Return what these *flags* (by name, those that were given) and the project's settings come to.

    Raises:
      ConfigError, CommandError: with every problem.
    """
    path = absolute(config or environ.get("REPROQ_CONFIG") or (None if flags else find_usual_file()))
    if path is None:
        return _of_project(flags, alias, environ)
    if is_worker_file(path):
        return _of_contract_file(path, flags, alias, environ)
    return _of_our_file(path, flags, alias, environ)


def start_worker(plan: Plan) -> NoReturn:
    """Become the supervisor of *plan*.

    Raises:
      ReproqError: something is not as it must be; nothing of ours is left behind.
    """
    with ExitStack() as undo:  # undone only where there was no exec
        folders: tuple[str, ...] = ()
        if plan.is_single:
            places = find_places(plan.path, plan.settings.control.socket, os.environ)
        else:
            places, folders = make_folder(os.environ)
        for folder in folders:
            undo.callback(shutil.rmtree, Path(folder), ignore_errors=True)
        hint = f" -c {plan.path}" if plan.path else ""
        start(Launch(plan.settings, places, plan.path, Output(), plan.origin, temporary_dirs=folders, hint=hint))


def served_queues(alias: str | None) -> list[str]:
    """Return the queues of the project's backends that are in the database *alias*; a backend without names serves those of its tasks."""
    from reproq_django.backend import ReproqBackend

    named: set[str] = set()
    for name in task_backends.settings:
        backend = task_backends[name]
        if isinstance(backend, ReproqBackend):
            of_tasks = {task.queue_name for task in find_tasks(task_modules()).values() if task.backend == name}
            named |= set(backend.queues) or {DEFAULT_TASK_QUEUE_NAME, *of_tasks}
    wanted = alias or default_db_alias()
    return sorted(queue for queue in named or {DEFAULT_TASK_QUEUE_NAME} if resolve_queue_db(queue) == wanted)


def _of_our_file(path: str, flags: Mapping[str, str], alias: str | None, environ: Mapping[str, str]) -> Plan:
    if flags:
        given = ", ".join(f"--{name}" for name in flags)
        raise CommandError(f"{given}: expected nothing beside the file {path}; write it into that, or leave the file away")
    layers = load(path, environ=environ).layers
    overrides = {key: value for key, value in _app({}, environ).items() if not layers.is_given(tuple(key.split(".")))}
    if alias is not None or not layers.is_given(("database",)):
        overrides["database"] = url_of(alias, environ)
    return Plan(load(path, overrides=overrides, environ=environ).settings, path, {"overrides": overrides}, is_single=True)


def _of_contract_file(path: str, flags: Mapping[str, str], alias: str | None, environ: Mapping[str, str]) -> Plan:
    given = dict(flags)
    if alias is not None or not (environ.get("DATABASE_URL") or _names_database(path)):
        given["dsn"] = url_of(alias, environ)
    worker = load_worker(path, given, environ)
    return Plan(worker.settings, path, {**origin_of(path, given), "worker_id": worker.name}, advice=worker.advice)


def _of_project(flags: Mapping[str, str], alias: str | None, environ: Mapping[str, str]) -> Plan:
    overrides = {**_app(flags, environ), "database": url_of(alias, environ)}
    chosen = _flat(getattr(settings, "REPROQ", None) or {})
    advice: tuple[str, ...] = ()
    if "pools" in chosen and not any(flags.get(name) for name in _ONE_POOL):
        overrides |= chosen
        if logs_dir := flags.get("logs-dir"):
            overrides["logs_dir"] = logs_dir
    else:
        queues = flags.get("queues") or environ.get("QUEUE_NAMES") or ",".join(served_queues(alias))
        given = {**flags, "dsn": overrides["database"], "queues": queues}
        one = translate(settle(contract_file.WorkerFile(), environ, given), environ)
        overrides, advice = {**one.overrides, **overrides, **chosen, "pools": one.overrides["pools"]}, one.advice
    worker_id = flags.get("worker-id") or environ.get("WORKER_ID")
    return Plan(
        load(None, overrides=overrides, environ=environ).settings, None, {"overrides": overrides, "worker_id": worker_id}, advice=advice
    )


def _names_database(path: str) -> bool:
    try:
        return bool(dsn_of_file(path))
    except ConfigError:
        return False  # none, or the file is wrong, which is told when it is loaded


def _app(flags: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the project knows of itself, by dotted key."""
    modules = task_modules()
    allowed = flags.get("allowed-task-modules") or environ.get("ALLOWED_TASK_MODULES")
    return {
        "app.django_settings_module": environ.get("DJANGO_SETTINGS_MODULE"),
        "app.preload": [module.__name__ for module in modules],
        "app.allowed_task_modules": allowed.split(",") if allowed else allowed_prefixes(find_tasks(modules)),
    }


def _flat(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return REPROQ by dotted key, so that what it leaves out of a group stays as it is."""
    found: dict[str, Any] = {}
    for name, value in chosen.items():
        if name in _GROUPS and isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return found


def find_usual_file() -> str | None:
    """Return the configuration file that is here: ours, else one of the older worker's; None when there is none."""
    return next((name for name in USUAL_FILES if Path(name).is_file()), None) or contract_file.find_file(None)
