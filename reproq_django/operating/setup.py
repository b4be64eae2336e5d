"""Subcommands that set a project up, and examine it."""

import io
import json
import os
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, OutputWrapper

from reproq_django.operating import artefact
from reproq_django.operating.databases import url_of
from reproq_django.operating.discovery import allowed_prefixes, find_tasks, task_modules
from reproq_django.operating.program import flags, run_program
from reproq_django.operating.running import given_flags, worker_flags
from reproq_django.operating.subcommand import Options, Out, Subcommand, database_flag, no_flags
from reproq_django.operating.worker import find_usual_file, served_queues
from reproq_supervisor.cli.new_file import write_new
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.settings.contract.file import ContractError, WorkerFile, find_file, read_file
from reproq_supervisor.settings.contract.load import is_worker_file
from reproq_supervisor.settings.contract.values import settle
from reproq_supervisor.settings.contract.words import WORDS
from reproq_supervisor.settings.masking import mask, mask_text

_ON = ("1", "true", "yes", "on")
_MODES = ("worker", "beat", "all")


# -- init, install, upgrade -------------------------------------------------------------------------------------------


def _artefact_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--source", metavar="ADDRESS", help="https address or folder of releases; default: REPROQ_RELEASE_URL.")
    parser.add_argument("--build", action="store_true", help="Accepted: there is nothing to build.")
    parser.add_argument("--tag", default="latest", metavar="TAG", help="Release (latest).")


def _install(options: Options, out: Out) -> None:
    if options["build"]:
        out.note("--build: there is nothing to build; the program is fetched")
    target = artefact.install_program(options["source"], options["tag"])
    out.line(f"{target}: {artefact.version_of(target)}")


def _upgrade_flags(parser: ArgumentParser) -> None:
    _artefact_flags(parser)
    parser.add_argument("--skip-worker-migrate", action="store_true", help="Leave the database as it is.")


def _upgrade(options: Options, out: Out) -> None:
    _install(options, out)
    if not options["skip_worker_migrate"]:
        _migrate(options, out)


def _init_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="File to write; default: reproq.yaml or reproq.toml here.")
    parser.add_argument("--format", choices=("yaml", "toml"), default="yaml", help="Of the file (yaml).")
    parser.add_argument("--force", action="store_true", help="Replace a file that exists.")
    parser.add_argument("--skip-install", action="store_true", help="Do not fetch the program, which this package has anyway.")
    parser.add_argument("--skip-migrate", action="store_true", help="Do not run `migrate`.")
    parser.add_argument("--skip-worker-migrate", action="store_true", help="Do not bring the tables of the queue.")
    _artefact_flags(parser)


def _init(options: Options, out: Out) -> None:
    path = Path(options["config"] or f"reproq.{options['format']}")
    prefixes = allowed_prefixes(find_tasks(task_modules()))
    try:
        write_new(path, _starter(path, prefixes), replace=options["force"])
    except ReproqError as error:
        raise CommandError(str(error)) from error
    out.line(f"{path}: written; the database is that of the project's settings")
    if not options["skip_install"] and (options["source"] or getattr(settings, "REPROQ_RELEASE_URL", None)):
        _install(options, out)
    if not options["skip_worker_migrate"]:
        _migrate(options, out)
    if not options["skip_migrate"]:
        call_command("migrate", stdout=out.stdout, stderr=out.stderr)


def _starter(path: Path, prefixes: list[str]) -> str:
    queues = json.dumps(served_queues(None))
    allowed = json.dumps(prefixes)
    if path.suffix == ".toml":
        return f"[worker]\nqueues = {queues}\nconcurrency = 10\nallowed_task_modules = {allowed}\n"
    return f"worker:\n  queues: {queues}\n  concurrency: 10\n  allowed_task_modules: {allowed}\n"


def _migrate(options: Options, out: Out) -> None:
    run_program(out, options.get("database"), "migrate")


# -- check, doctor ----------------------------------------------------------------------------------------------------


def _check(options: Options, out: Out) -> None:
    from reproq_supervisor import __version__
    from reproq_supervisor.store.connect import connected
    from reproq_supervisor.store.errors import StoreError, StoreUnavailable
    from reproq_supervisor.store.migrate import schema_is_current

    program = artefact.find_program()
    out.line(f"program   {program}: {artefact.version_of(program)}" if program else f"program   of this package, {__version__}")
    url = url_of(None)
    out.line(f"database  {mask_text(url)}")
    try:
        with connected(url, application_name="reproq check") as connection:
            is_current = schema_is_current(connection)
    except (StoreError, StoreUnavailable) as error:
        raise CommandError(f"database: {mask_text(str(error))}") from error
    if not is_current:
        raise CommandError("tables: expected the schema of this version; bring it by: manage.py migrate")
    out.line("tables    of this version")
    for line in _environment_advice():
        out.note(f"warning: {line}")


def _environment_advice() -> Iterator[str]:
    if os.environ.get("LOW_MEMORY_MODE", "").lower() in _ON:
        yield "LOW_MEMORY_MODE is on: tasks are found by polling"
    if os.environ.get("REPROQ_BEAT_CMD", "on").lower() in ("", "0", "false", "off", "disabled", "none"):
        yield "REPROQ_BEAT_CMD switches beat off: schedules fire only where something else fires them"


def _doctor_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="File to examine, too.")
    parser.add_argument("--strict", action="store_true", help="Warnings fail, too.")
    database_flag(parser)


def _doctor(options: Options, out: Out) -> None:
    """Ask Django's own checks, the file that a worker would read, then the database."""
    from django.core import checks

    trouble = [each for each in checks.run_checks() if (each.id or "").startswith("reproq")]
    for each in trouble:
        out.line(f"{'error' if each.is_serious() else 'warning':<8}settings: {each.msg}")
    path = options["config"] or os.environ.get("REPROQ_CONFIG") or find_usual_file()
    if path is not None and is_worker_file(path):
        _values(path, {})
        out.line(f"ok      configuration: {path}: valid")
        path = None
    if not allowed_prefixes(find_tasks(task_modules())):
        out.line("warning tasks: no application has a module `tasks` with tasks: a worker would refuse to run any")
    findings = _findings(options["database"], path)
    for each in findings:
        remedy = f" ({each['remedy']})" if each["remedy"] else ""
        out.line(f"{each['level']:<8}{each['check']}: {each['message']}{remedy}")
    bad = {"error", "warning"} if options["strict"] else {"error"}
    if any(each["level"] in bad for each in findings) or any(each.is_serious() or options["strict"] for each in trouble):
        raise CommandError("not everything was as it should be; it is said above")


def _findings(alias: str | None, path: str | None) -> list[dict[str, str]]:
    """Return what the program's own `doctor` finds, but for what a file leaves to the project."""
    answer = io.StringIO()
    streams = Out(OutputWrapper(answer), OutputWrapper(io.StringIO()))
    try:
        run_program(streams, alias, "doctor", *flags(config=path), "--json")
    except CommandError:
        if not answer.getvalue():
            raise
    found: list[dict[str, str]] = json.loads(answer.getvalue())["findings"]
    return [each for each in found if not each["message"].startswith("app.allowed_task_modules is empty")]


# -- config, allowlist ------------------------------------------------------------------------------------------------


def _config_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="reproq.yaml or reproq.toml.")
    parser.add_argument("--mode", choices=_MODES, default="worker", help="What to show (worker).")
    parser.add_argument("--explain", action="store_true", help="Say of every value where it comes from.")
    parser.add_argument("--print", action="store_true", dest="print_it", help="Accepted: it is always printed.")
    worker_flags(parser)
    database_flag(parser)


def _config(options: Options, out: Out) -> None:
    path = options["config"] or os.environ.get("REPROQ_CONFIG") or find_usual_file()
    if path is not None and not is_worker_file(path):
        run_program(out, options["database"], "config", "show", *flags(config=path, origin=options["explain"]))
        return
    values, origins = _values(path, given_flags(options), options["database"])
    shown = {name: value for name, value in values.items() if options["mode"] != "beat" or name == "dsn"}
    if options["explain"]:
        for name, value in shown.items():
            out.line(f"{name}: {value} ({origins[name]})")
        return
    out.line(json.dumps(shown, indent=2, default=list))


def _values(path: str | None, given: dict[str, str], alias: str | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a worker would be told, secrets masked, and where each comes from: default, config, env, settings, flag."""
    try:
        file = read_file(path) if path else WorkerFile()
        is_told = alias is None and (os.environ.get("DATABASE_URL") or {"dsn", "worker.dsn"} & set(file.texts))
        from_settings = {} if is_told else {"dsn": url_of(alias)}
        if path is None:
            from_settings |= _of_project(alias)
        settled = settle(file, os.environ, {**from_settings, **given})
    except ContractError as error:
        raise CommandError(mask_text(str(error))) from error
    kinds = {word.env: "env" for word in WORDS if word.env} | {key: "config" for word in WORDS for key in word.keys}
    origins = {name: kinds.get(origin, "flag" if origin.startswith("--") else origin) for name, origin in settled.origins.items()}
    origins |= {name: "settings" for name in from_settings if name not in given}
    return {name: mask(name, value) for name, value in settled.by_name.items()}, origins


def _of_project(alias: str | None) -> dict[str, str]:
    """Return what a worker without a file takes from the project, where the environment does not say otherwise."""
    known = {
        "QUEUE_NAMES": ("queues", served_queues(alias)),
        "ALLOWED_TASK_MODULES": ("allowed-task-modules", allowed_prefixes(find_tasks(task_modules()))),
    }
    return {name: ",".join(values) for variable, (name, values) in known.items() if not os.environ.get(variable)}


def _allowlist_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=("env", "plain"), default="env", help="ALLOWED_TASK_MODULES=…, or the prefixes alone (env).")
    parser.add_argument("--show-tasks", action="store_true", help="List the tasks, too.")
    parser.add_argument("--write", action="store_true", help="Write it into the file.")
    parser.add_argument("--config", metavar="FILE", help="That file; default: the usual one that is here.")


def _allowlist(options: Options, out: Out) -> None:
    tasks = find_tasks(task_modules())
    prefixes = allowed_prefixes(tasks)
    text = ",".join(prefixes)
    out.line(f"ALLOWED_TASK_MODULES={text}" if options["format"] == "env" else text)
    if options["show_tasks"]:
        for path in sorted(tasks):
            out.line(f"  {path}")
    if options["write"]:
        _write_allowlist(options["config"] or find_file(None), prefixes, out)


def _write_allowlist(path: str | None, prefixes: list[str], out: Out) -> None:
    from reproq_django.operating.rewriting import with_allowlist

    if path is None:
        raise CommandError("--config: expected a file to write to, found none here; `manage.py reproq init` makes one")
    file = Path(path)
    try:
        old = file.read_text(encoding="utf-8")
        write_new(file, with_allowlist(old, prefixes, is_toml=file.suffix == ".toml"), replace=True)
    except (OSError, ReproqError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from error
    out.line(f"{path}: written")


SUBCOMMANDS = {
    "init": Subcommand("Write a configuration and bring the tables.", _init_flags, _init),
    "check": Subcommand("See that program, database and tables are there.", no_flags, _check),
    "doctor": Subcommand("Examine settings, configuration and database for trouble.", _doctor_flags, _doctor),
    "config": Subcommand("Show what a worker would be told, and by whom.", _config_flags, _config),
    "allowlist": Subcommand("Show which tasks may run.", _allowlist_flags, _allowlist),
    "migrate-worker": Subcommand("Bring the tables of the queue, as `migrate` does.", database_flag, _migrate),
    "install": Subcommand("Fetch the program as one file, with its checksum proved.", _artefact_flags, _install),
    "upgrade": Subcommand("Fetch another release, and bring the tables.", _upgrade_flags, _upgrade),
}
