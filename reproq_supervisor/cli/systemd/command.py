"""`systemd`: the unit file, filled in for this machine and hardened by what the configuration needs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reproq_supervisor.cli.new_file import write_new
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.systemd.directives import NOTIFY_RELOAD_SINCE, OLDEST
from reproq_supervisor.cli.systemd.machine import (
    NoSuchAccountError,
    ServiceAccount,
    find_account,
    find_installed,
    find_python,
    find_systemd,
    find_unreachable,
    service_environment,
)
from reproq_supervisor.cli.systemd.quoting import UnitTextError
from reproq_supervisor.cli.systemd.site import INSTANCE, Site

if TYPE_CHECKING:
    from reproq_supervisor.cli.systemd.needs import Needs

_FILE = click.Path(path_type=Path)
# Stands for what a credential says: all that matters here is that it is not the embedded database.
ELSEWHERE = "postgresql:///"


@click.command(
    epilog=example(
        "reproq-supervisor systemd -c /etc/reproq-supervisor/supervisor.yaml --user app --credential /etc/reproq-supervisor/dsn",
        "reproq-supervisor systemd --output /etc/systemd/system/",
    )
)
@click.option("--output", metavar="PATH", type=_FILE, help="File to write, or its folder; without it the unit is printed.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option("--user", metavar="NAME", help="Account of the daemon; default: whoever called sudo, else you.")
@click.option("--group", metavar="NAME", help="Its group; default: the user's own.")
@click.option("--directory", metavar="PATH", type=_FILE, help="Working directory of the daemon; default: this one.")
@click.option("--instance", metavar="NAME", default="", help="Tells several daemons of one machine apart.")
@click.option("--credential", metavar="FILE", type=_FILE, help="File with the DSN, handed over by LoadCredential=.")
@click.option("--env-file", metavar="FILE", type=_FILE, help="File with NAME=value lines for the environment.")
@click.option("--writable", metavar="PATH", type=_FILE, multiple=True, help="Folder that tasks write to; may be repeated.")
@click.option("--notify-reload", is_flag=True, help=f"Reload by signal (systemd {NOTIFY_RELOAD_SINCE}): a refused reload does not fail.")
@click.option(
    "--systemd-version", "version", metavar="N", type=click.IntRange(OLDEST), help="Write for this systemd instead of the one here."
)
@common_options
def systemd(
    options: Options,
    output: Path | None,
    force: bool,
    user: str | None,
    group: str | None,
    directory: Path | None,
    instance: str,
    credential: Path | None,
    env_file: Path | None,
    writable: tuple[Path, ...],
    notify_reload: bool,
    version: int | None,
) -> None:
    """Write the unit file for this machine.

    Whatever the configuration does not need is taken away from the daemon and its tasks; the file says what each line costs.
    """
    from reproq_supervisor.cli.systemd.needs import find_needs  # the settings, which --help need not load
    from reproq_supervisor.cli.systemd.unit import render_unit
    from reproq_supervisor.settings.load import load

    config = Path(options.require_config()).absolute()
    if options.dsn is not None:
        raise click.UsageError(
            "--dsn: everybody can read a unit and its command line; put the URL into a file, and name that by --credential"
        )
    settings = load(str(config), overrides={"database": ELSEWHERE} if credential else {}, environ=service_environment(env_file)).settings
    found = version or find_systemd()
    _check_instance(instance)
    if notify_reload and (found or OLDEST) < NOTIFY_RELOAD_SINCE:
        raise click.BadParameter(f"expected systemd {NOTIFY_RELOAD_SINCE} or newer, found {found or 'none'}", param_hint="--notify-reload")
    others = sorted({pool.user for pool in settings.pools.values() if pool.user})
    account = _account(user or ("root" if others else None), group)
    site = Site(
        user=account.user,
        group=account.group,
        is_root=account.is_root,
        python=find_python(),
        installed=find_installed(),
        directory=Path(directory or ".").absolute(),
        config=config,
        systemd=max(found or OLDEST, OLDEST),
        instance=instance,
        credential=credential and credential.absolute(),
        env_file=env_file and env_file.absolute(),
        writable=tuple(path.absolute() for path in writable),
        notify_reload=notify_reload,
    )
    needs = find_needs(settings, site)
    try:
        text = render_unit(settings, site, needs)
    except UnitTextError as error:
        raise click.UsageError(str(error)) from error
    path = output / f"{site.name}.service" if output is not None and output.is_dir() else output
    if path is not None:
        write_new(path, text, replace=force)
    _tell(options, site, path, text, [*_advise_site(site, found, others), *_advise_folders(needs), *_advise_reach(site)])


def _check_instance(instance: str) -> None:
    if instance and not INSTANCE.fullmatch(instance):
        raise click.BadParameter(f"expected letters, digits, - and _, got {instance!r}", param_hint="--instance")


def _account(user: str | None, group: str | None) -> ServiceAccount:
    try:
        return find_account(user, group, os.environ)
    except NoSuchAccountError as error:
        raise click.BadParameter(str(error), param_hint="--user or --group") from None


def _advise_site(site: Site, found: int | None, others: list[str]) -> Iterator[str]:
    """Yield what the operator should know or do before the unit can start."""
    if found is None:
        yield f"found no systemd here: written for {site.systemd}, which newer ones understand too; --systemd-version names another"
    elif found < OLDEST:
        yield f"found systemd {found}, which is older than {OLDEST}: it does not know all of these lines"
    if others and not site.is_root:
        yield f"pools run as {', '.join(others)}, which takes a daemon that is root: --user root"
    if site.is_root and not others:
        yield "the daemon and its tasks run as root; name an account by --user"
    for what, path in (("credential", site.credential), ("environment", site.env_file)):
        if path is None:
            continue
        if not path.is_file():
            yield f"{path}: expected the file with the {what}, found none; the unit does not start without it"
        elif path.stat().st_mode & 0o077:
            yield f"{path}: is open to other users; root reads it for the daemon: chown root {path}; chmod 600 {path}"


def _advise_folders(needs: "Needs") -> Iterator[str]:
    for path in needs.writable:
        if not path.is_dir():
            yield f"{path}: expected a folder to write to, found none; the unit does not start without it"


def _advise_reach(site: Site) -> Iterator[str]:
    for path in find_unreachable(site.user, [*site.installed, site.directory, site.config.parent]):
        yield f"{path}: expected a folder that {site.user} can reach, found it closed; the unit does not start"


def _tell(options: Options, site: Site, path: Path | None, text: str, advice: list[str]) -> None:
    output = options.output
    if output.as_json:
        written = str(path.absolute()) if path else None
        output.show_json(
            {"ok": True, "name": f"{site.name}.service", "path": written, "systemd": site.systemd, "unit": text, "advice": advice}
        )
        return
    if path is None:
        click.echo(text, nl=False)
    else:
        output.line(f"{path}: written; next: systemctl daemon-reload && systemctl enable --now {site.name}")
    for line in advice:
        click.echo(f"{click.style('advice:', fg='yellow', bold=True)} {line}", err=True)
