"""`scale`, `drain`, `resume`, `restart`: what an operator does to one pool."""

import click

from reproq_supervisor.cli.daemon.control import ask
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_duration
from reproq_supervisor.core.words import counted
from reproq_supervisor.settings.units import format_duration


def _as_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Return the number of executors, None for `auto`."""
    if value == "auto":
        return None
    if value.isascii() and value.isdigit():
        return int(value)
    raise click.BadParameter(f"expected a number of executors or auto, got {value!r}", ctx, param)


@click.command(epilog=example("reproq-supervisor scale mail 8 --for 10m", "reproq-supervisor scale mail auto"))
@click.argument("pool", metavar="POOL")
@click.argument("executors", metavar="N|auto", callback=_as_size)
@click.option("--for", "for_s", metavar="DURATION", callback=as_duration, help="For that long; without it until the daemon ends.")
@common_options
def scale(options: Options, pool: str, executors: int | None, for_s: float | None) -> None:
    """Set the size of a pool for a while.

    N executors, shared out over the shards of the pool, at least one for each; one that is too many finishes its task first. `auto` goes
    back to the configured size. `status` shows the override. To have none run anything: `drain`.
    """
    answer = ask(options, "scale", pool=pool, executors=executors, for_s=for_s)
    if options.output.as_json:
        options.output.show_json({"ok": True, **answer})
        return
    if executors is None:
        options.output.line(f"{pool}: back to the configured size")
        return
    until = "the daemon ends" if for_s is None else f"{format_duration(for_s)} from now"
    options.output.line(f"{pool}: {counted(executors, 'executor')} until {until}")


@click.command(epilog=example("reproq-supervisor drain mail", "reproq-supervisor resume mail"))
@click.argument("pool", metavar="POOL")
@common_options
def drain(options: Options, pool: str) -> None:
    """Let a pool finish what it runs and claim nothing new.

    Its executors stay; `resume` makes it claim again.
    """
    _tell(options, "drain", pool, "claims nothing new; back to work with: reproq-supervisor resume " + pool)


@click.command(epilog=example("reproq-supervisor resume mail"))
@click.argument("pool", metavar="POOL")
@common_options
def resume(options: Options, pool: str) -> None:
    """Let a drained pool claim again."""
    _tell(options, "resume", pool, "claims again")


@click.command(epilog=example("reproq-supervisor restart mail"))
@click.argument("pool", metavar="POOL")
@common_options
def restart(options: Options, pool: str) -> None:
    """Replace a pool's processes by fresh ones.

    The new ones import the application anew and must be ready before the old ones drain; if they fail, the old ones stay and the reason is
    told.
    """
    answer = ask(options, "restart", timeout_s=None, pool=pool)
    if options.output.as_json:
        options.output.show_json({"ok": True, **answer})
    else:
        generation = answer.get("generation")
        options.output.line(f"{pool}: restarted" + (f", generation {generation}" if generation is not None else ""))


def _tell(options: Options, command: str, pool: str, words: str) -> None:
    answer = ask(options, command, pool=pool)
    if options.output.as_json:
        options.output.show_json({"ok": True, **answer})
    else:
        options.output.line(f"{pool}: {words}")
