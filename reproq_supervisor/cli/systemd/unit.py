"""The unit file as a whole."""

import math
from collections.abc import Iterable, Iterator

import reproq_supervisor
from reproq_supervisor.cli.systemd.directives import Directive
from reproq_supervisor.cli.systemd.hardening import harden
from reproq_supervisor.cli.systemd.needs import Needs
from reproq_supervisor.cli.systemd.quoting import command_line, plain
from reproq_supervisor.cli.systemd.site import Site
from reproq_supervisor.settings.model import EMBEDDED, Settings

START_SLACK_S = 30
"""For the interpreter, the configuration and the look at the schema, on top of what the processes may take."""

INITDB_S = 60

STOP_SLACK_S = 15
"""A stop ends within shutdown_timeout by itself; this is for a machine that can hardly breathe."""

WATCHDOG_S = 30


def render_unit(settings: Settings, site: Site, needs: Needs) -> str:
    """Return the text of the unit file.

    Raises:
      UnitTextError: a path cannot be in a unit file.
    """
    sections = {
        "Unit": _unit(site),
        "Service": _service(settings, site, needs),
        "Install": [Directive("WantedBy", "multi-user.target")],
    }
    head = (
        f"# Written by `reproq-supervisor systemd` {reproq_supervisor.__version__} for systemd {site.systemd}.\n"
        f"# To change something: systemctl edit {site.name}. When the configuration moves or needs more rights: write this file again.\n"
    )
    return head + "".join(f"\n[{title}]\n{_body(directives, site.systemd)}" for title, directives in sections.items())


def _body(directives: Iterable[Directive], systemd: int) -> str:
    return "".join(directive.render() for directive in directives if directive.is_known_to(systemd))


def _unit(site: Site) -> Iterator[Directive]:
    yield Directive("Description", f"Background tasks on PostgreSQL ({site.name})")
    yield Directive("Wants", "network-online.target")
    yield Directive("After", "network-online.target postgresql.service")
    yield Directive("StartLimitIntervalSec", "0", "Never given up: what cannot get better by itself ends with exit code 78, see below.")


def _service(settings: Settings, site: Site, needs: Needs) -> Iterator[Directive]:
    yield from _process(site)
    yield from _times(settings)
    yield from _ends()
    yield from _folders(site, needs)
    yield from harden(needs)


def _process(site: Site) -> Iterator[Directive]:
    yield Directive("Type", "notify-reload" if site.notify_reload else "notify")
    yield Directive("NotifyAccess", "main", "Tasks cannot speak for the daemon.")
    yield Directive("User", plain(site.user))
    yield Directive("Group", plain(site.group))
    yield Directive("WorkingDirectory", plain(site.directory))
    if site.env_file is not None:
        yield Directive("EnvironmentFile", plain(site.env_file))
    if site.credential is not None:
        why = "The URL of the database, read by the service manager: the file may belong to root, and no process has it in its environment."
        yield Directive("LoadCredential", f"dsn:{plain(site.credential)}", why)
    program = (site.python, "-P", "-m", "reproq_supervisor")
    # Without a file of its own it is found by its runtime folder.
    file = () if site.start else ("-c", site.config)
    yield Directive("ExecStart", command_line(site.python, *site.start) if site.start else command_line(*program, "run", *file))
    if not site.notify_reload:
        why = "Answers when the new configuration is in force, and fails with the reason when it was refused."
        yield Directive("ExecReload", command_line(*program, "reload", *file), why)


def _times(settings: Settings) -> Iterator[Directive]:
    """Yield the limits; the daemon asks for more time while it starts and drains (EXTEND_TIMEOUT_USEC), so none of them is tight."""
    start_s = START_SLACK_S + max(pool.boot_timeout for pool in settings.pools.values())
    if settings.database == EMBEDDED:
        start_s += INITDB_S
    yield Directive("TimeoutStartSec", f"{math.ceil(start_s)}s")
    yield Directive("TimeoutStopSec", f"{math.ceil(settings.shutdown_timeout) + STOP_SLACK_S}s", f"shutdown_timeout and {STOP_SLACK_S} s.")
    yield Directive("WatchdogSec", f"{WATCHDOG_S}s")


def _ends() -> Iterator[Directive]:
    yield Directive("KillMode", "mixed", "TERM goes to the daemon alone, which drains its processes; KILL to all that is left.")
    yield Directive("Restart", "on-failure", "Not after `reproq-supervisor stop`, which ends with exit code 0.")
    yield Directive("RestartSec", "2s")
    yield Directive("RestartSteps", "5")
    yield Directive("RestartMaxDelaySec", "60s")
    yield Directive("RestartPreventExitStatus", "78", "A configuration that cannot be used: somebody has to edit it first.")
    yield Directive(
        "OOMPolicy", "continue", "A task that is killed for its memory is one failed attempt, and no reason to stop the service."
    )


def _folders(site: Site, needs: Needs) -> Iterator[Directive]:
    mode = "0711" if needs.other_users else "0700"
    yield Directive("StateDirectory", site.name, "The embedded database is here; kept when the service stops.")
    yield Directive("StateDirectoryMode", mode)
    yield Directive("RuntimeDirectory", site.name, "Sockets, and what commands find the daemon by.")
    yield Directive("RuntimeDirectoryMode", mode)
    yield Directive("LogsDirectory", site.name, "For the output of tasks: logs_dir: ${LOGS_DIRECTORY:-}")
    yield Directive("LogsDirectoryMode", "0750")
    yield Directive("ConfigurationDirectory", site.name)
