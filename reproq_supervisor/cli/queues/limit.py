"""`limit`: how many runs a second may start."""

import math
import re
from dataclasses import asdict

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import MOST_INT32, short_name

_KEY = re.compile(r"global|(task|queue):.+", re.DOTALL)


def _as_key(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _KEY.fullmatch(value):
        raise click.BadParameter(f"expected task:<path>, queue:<name> or global, got {value!r}")
    return value


def _as_rate(context: click.Context, parameter: click.Parameter, value: float) -> float:
    # Not a number lies within every range, and to the database it is more than any.
    if math.isnan(value):
        raise click.BadParameter(f"expected a number such as 5 or 0.5, got {value!r}")
    return value


_key = click.option("--key", metavar="KEY", required=True, callback=_as_key, help="task:<path>, queue:<name> or global.")


@click.group()
def limit() -> None:
    """Set how many tasks a second may start.

    A limit holds over all hosts. For a task the first of task:<path>, queue:<name> and global that is set decides; a rate of 0 there frees
    it from the wider ones.
    """


@limit.command("set", epilog=example("reproq-supervisor limit set --key queue:mail --rate 5 --burst 20"))
@_key
@click.option(
    "--rate", metavar="N", type=click.FloatRange(0, 1e6), callback=_as_rate, default=0.0, show_default=True, help="Tokens a second."
)
@click.option("--burst", metavar="N", type=click.IntRange(1, MOST_INT32), default=1, show_default=True, help="Tokens in a full bucket.")
@common_options
def set_(options: Options, key: str, rate: float, burst: int) -> None:
    """Set a limit and fill its bucket."""
    from reproq_supervisor.store import controls

    with open_database(options) as connection:
        controls.set_limit(connection, key, rate, burst)
    if options.output.as_json:
        options.output.show_json({"ok": True, "key": key, "rate": rate, "burst": burst})
    else:
        options.output.line(f"{key}: {rate:g} a second, {burst} at once" if rate else f"{key}: free")


@limit.command("ls", epilog=example("reproq-supervisor limit ls", "reproq-supervisor limit ls --json"))
@common_options
def list_(options: Options) -> None:
    """List the limits, their tokens now, and how many tasks wait for one."""
    from reproq_supervisor.store import controls

    with open_database(options) as connection:
        found = controls.limits(connection)
    if options.output.as_json:
        options.output.show_json([asdict(each) for each in found])
        return
    rows = [
        (
            short_name(each.key, 60),
            f"{each.tokens_per_second:g}",
            each.burst,
            f"{each.tokens:.1f}",
            each.last_refilled_at.isoformat("T", "seconds"),
            each.waiting,
        )
        for each in found
    ]
    options.output.table(("key", "tokens/s", "burst", "now", "last refill", "waiting"), rows, empty="no limits")


@limit.command("rm", epilog=example("reproq-supervisor limit rm --key queue:mail"))
@_key
@common_options
def remove(options: Options, key: str) -> int:
    """Remove a limit. Exit code 1 when there is none."""
    from reproq_supervisor.store import controls

    with open_database(options) as connection:
        was_there = controls.remove_limit(connection, key)
    if options.output.as_json:
        options.output.show_json({"ok": was_there, "key": key})
    else:
        options.output.line(f"{key} removed" if was_there else f"{key}: expected a limit with this key, found none; see `limit ls`")
    return 0 if was_there else 1
