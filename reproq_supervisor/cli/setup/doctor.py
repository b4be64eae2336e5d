"""`doctor`: what is wrong, or will be, with database and configuration."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.database import EMBEDDED, find_dsn, open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.output import visible
from reproq_supervisor.cli.setup.safety import examine_safety
from reproq_supervisor.cli.values import short_name
from reproq_supervisor.core.errors import ReproqError
from reproq_supervisor.core.words import counted
from reproq_supervisor.settings.masking import mask_text
from reproq_supervisor.settings.problems import ConfigError

if TYPE_CHECKING:
    from reproq_supervisor.settings.model import Settings
    from reproq_supervisor.store.commands import Stats
    from reproq_supervisor.store.doctor import Finding

# Workers say every 30 s that they are there.
_ALIVE_S = 90.0
_COLOURS = {"ok": "green", "note": None, "warning": "yellow", "error": "red"}


@click.command(epilog=example("reproq-supervisor doctor", "reproq-supervisor doctor --strict --json"))
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@common_options
def doctor(options: Options, strict: bool) -> int:
    """Examine database and configuration for trouble.

    Changes nothing. Exit code 1 when there is an error, with --strict also when there is a warning; 69 or 75 when the database could not be
    examined.
    """
    settings, findings = _configuration(options)
    findings += _safety(options, settings)
    code = 0
    try:
        findings += _database(options, settings)
    except ConfigError:
        code = ConfigError.exit_code  # told above; it says which database
    except ReproqError as error:
        code = error.exit_code
        findings.append(_finding("error", "database", mask_text(str(error))))
    bad = {"error", "warning"} if strict else {"error"}
    if code == 0 and any(finding.level in bad for finding in findings):
        code = 1
    if options.output.as_json:
        options.output.show_json({"ok": code == 0, "findings": [asdict(finding) for finding in findings]})
        return code
    for finding in findings:
        remedy = f" ({finding.remedy})" if finding.remedy else ""
        options.output.line(f"{finding.level:<8}{finding.check}: {finding.message}{remedy}", style=_COLOURS[finding.level])
    return code


def _configuration(options: Options) -> tuple["Settings | None", list["Finding"]]:
    """Return the settings, None when they are wrong, and what there is to say about them."""
    from reproq_supervisor.settings.checks import advise

    source = options.config_path
    try:
        settings = options.load().settings
    except ConfigError as error:
        return None, [_finding("error", "configuration", problem.render(error.source)) for problem in error.problems]
    if source is None:
        return settings, [_finding("note", "configuration", "there is no file; these are the defaults")]
    # What the safety of the file comes to is said apart, as something to mend.
    advice = [
        _finding("note", "configuration", f"{source}: {path}: {text}")
        for path, text in advise(settings)
        if path != "app.allowed_task_modules"
    ]
    return settings, advice or [_finding("ok", "configuration", f"{source}: valid")]


def _safety(options: Options, settings: "Settings | None") -> Iterator["Finding"]:
    """Say what of a configuration lets in who should stay out; the defaults, without a file, are not meant for anything."""
    source = options.config_path
    if settings is None or source is None:
        return
    dsn = options.database()
    for words in examine_safety(settings, Path(source), None if dsn == EMBEDDED else dsn):
        yield _finding(*words)


def _database(options: Options, settings: "Settings | None") -> list["Finding"]:
    from reproq_supervisor.store import commands
    from reproq_supervisor.store.doctor import Level, served_queues
    from reproq_supervisor.store.doctor import doctor as examine

    with open_database(options) as connection:
        findings = [_finding("ok", "database", mask_text(find_dsn(options))), *examine(connection)]
        if settings is not None and not any(finding.check == "schema" and finding.level is Level.ERROR for finding in findings):
            findings += _queues(settings, commands.stats(connection), served_queues(connection, _ALIVE_S))
    return findings


def _queues(settings: "Settings", stats: "Stats", alive: frozenset[str]) -> Iterator["Finding"]:
    """Find tasks that nobody will run. *alive*: queues that some worker, of this host or another, has served lately."""
    configured = {queue for pool in settings.pools.values() for queue in pool.queues}
    for queue_name, queue in stats.queues.items():
        if not queue.ready:
            continue
        name, ready = visible(short_name(queue_name, 100)), counted(queue.ready, "task")
        if queue.paused is not None:
            remedy = f"resume it: reproq-supervisor queue resume {name}"
            yield _finding("warning", "queues", f"{name} is paused with {ready} ready", remedy)
        elif queue_name in alive:
            continue
        elif queue_name in configured:
            message = f"{name} has {ready} ready, and no worker that serves it was seen in the last {_ALIVE_S:.0f} s"
            yield _finding("warning", "queues", message, "start the daemon: reproq-supervisor run")
        else:
            message = (
                f"{name} has {ready} ready and is served by no pool of this configuration, nor by a worker that was seen in "
                f"the last {_ALIVE_S:.0f} s"
            )
            yield _finding("warning", "queues", message, "add it to a pool")


def _finding(level: str, check: str, message: str, remedy: str = "") -> "Finding":
    from reproq_supervisor.store.doctor import Finding, Level

    return Finding(Level(level), check, message, remedy)
