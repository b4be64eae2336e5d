"""`demo`: from nothing to a report, in one command."""

import gc
import os
import platform
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import click

from reproq_supervisor.cli.database import worded
from reproq_supervisor.cli.demo import findings, report
from reproq_supervisor.cli.demo.client import count_by_queue, ping_one_by_one, read_output, run_all
from reproq_supervisor.cli.demo.findings import Findings
from reproq_supervisor.cli.demo.ground import Ground, Library, find_checkout, load_library, private_ground
from reproq_supervisor.cli.demo.progress import StalledError, display_for
from reproq_supervisor.cli.demo.workload import Planned, plan_files, plan_mischief
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.output import Output
from reproq_supervisor.cli.private.daemon import PrivateDaemon
from reproq_supervisor.cli.private.interruption import Interruption
from reproq_supervisor.store.connect import connected

FAILED = 1


@click.command(epilog=example("reproq-supervisor demo", "reproq-supervisor demo --limit 200 --keep"))
@click.option("--keep", is_flag=True, help="Keep database, logs and configuration afterwards.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Measure the first N files only.")
@common_options
@click.pass_context
def demo(context: click.Context, options: Options, keep: bool, limit: int | None) -> int:
    """Run real tasks on a private PostgreSQL.

    One task for each source file of Python's standard library, and a few that crash, hang and flood. A report holds every result against
    a plain loop over the same files. Everything happens in a folder of its own below .reproq in the checkout, and nothing is left behind.

    Exit code 0 when everything was as expected.
    """
    _refuse_settings(context)
    interruption = Interruption()
    with interruption.watched(), private_ground(find_checkout(), interruption, keep=keep) as ground:
        found = _demonstrate(options.output, ground, interruption, limit)
        report.tell(options.output, found, kept=str(ground.folder) if keep else None)
    return FAILED if found.surprises else 0


def _refuse_settings(context: click.Context) -> None:
    """Refuse flags that a demo cannot follow; variables of the environment that say the same are not meant for it."""
    for name in ("config", "dsn"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name}: expected none, a demo has a configuration and a database of its own")


def _demonstrate(output: Output, ground: Ground, interruption: Interruption, limit: int | None) -> Findings:
    library = load_library(ground.checkout)
    names = library.sources()[:limit]
    planned = [*plan_mischief(ground.scratch), *plan_files(library, names)]
    _introduce(output, ground, planned)
    daemon = PrivateDaemon(ground, interruption)
    with ExitStack() as on_failure:
        on_failure.callback(_stop, daemon)
        try:
            found = _use(daemon, output, planned)
        except KeyboardInterrupt:
            click.echo("\nstopping the daemon; once more, and it will not wait for running tasks", err=True)
            raise
        on_failure.pop_all()
    found.surprises += daemon.stop().complaints
    _compare(output, found, library, names)
    return found


def _stop(daemon: PrivateDaemon) -> None:
    """Stop it where no report follows that could name what went wrong meanwhile."""
    for complaint in daemon.stop().complaints:
        click.echo(complaint, err=True)


def _introduce(output: Output, ground: Ground, planned: list[Planned]) -> None:
    if not output.as_json:
        files = sum(each.is_file for each in planned)
        output.line("reproq-supervisor demo", style="bold")
        output.line(
            f"  input  {files:,} source files of Python {platform.python_version()}, and {len(planned) - files} tasks that misbehave"
        )
        output.line(f"  look   {_typed(sys.executable)} -m reproq_supervisor status -c {_typed(ground.config)}")
        output.line("Starting PostgreSQL and the daemon …")


def _typed(path: str | Path) -> str:
    """Return *path* as one would type it here."""
    return shlex.quote(min(str(path), os.path.relpath(path), key=len))


def _use(daemon: PrivateDaemon, output: Output, planned: list[Planned]) -> Findings:
    """Start the daemon and let it do everything that is planned."""
    began = time.monotonic()
    daemon.start()
    dsn = daemon.wait_ready()
    if not output.as_json:
        output.line(f"Ready after {time.monotonic() - began:.1f} s; enqueueing {len(planned):,} tasks")
    with worded(dsn), connected(dsn) as connection:
        with display_for(output, count_by_queue(planned)) as display:
            try:
                outcomes = run_all(connection, planned, display, daemon.check)
            except StalledError as error:
                raise StalledError("\n".join([str(error), *daemon.log_tail()])) from error
        pings = ping_one_by_one(connection, daemon.check)
    found = findings.summarise(outcomes, read_output)
    found.idle = findings.spread(map(findings.waited_s, pings))
    return found


def _compare(output: Output, found: Findings, library: Library, names: list[str]) -> None:
    """Do the same work in a plain loop, and hold every result against it."""
    if not output.as_json:
        output.line("Measuring the same files in a plain loop …")
    gc.freeze()  # as the nursery does before it forks: two thousand results at hand must not slow the collector
    began = time.monotonic()
    plain = {name: library.measure(name) for name in names}
    found.plain_s = time.monotonic() - began
    found.surprises += findings.differences(found.measures, plain)
