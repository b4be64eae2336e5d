"""`queue`: stop and continue the claims from a queue, for every host."""

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import as_queue, short_name


@click.group()
def queue() -> None:
    """List, pause and resume queues."""


@queue.command("list", epilog=example("reproq-supervisor queue list", "reproq-supervisor queue list --json"))
@common_options
def list_(options: Options) -> None:
    """List the queues with their backlog, and why those that are paused are."""
    from reproq_supervisor.store import commands

    with open_database(options) as connection:
        found = commands.stats(connection).queues
    if options.output.as_json:
        options.output.show_json(
            [
                {"queue": name, "ready": each.ready, "running": each.running, "paused": each.paused is not None, "reason": each.paused}
                for name, each in found.items()
            ]
        )
        return
    rows = [
        (short_name(name), each.ready, each.running, "" if each.paused is None else f"paused {each.paused}".rstrip())
        for name, each in found.items()
    ]
    options.output.table(("queue", "ready", "running", ""), rows, empty="no queues")


@queue.command(epilog=example("reproq-supervisor queue pause mail --reason 'the relay is down'"))
@click.argument("name", metavar="QUEUE", callback=as_queue)
@click.option("--reason", metavar="TEXT", help="Shown by `queue list`, `stats` and `explain`.")
@common_options
def pause(options: Options, name: str, reason: str | None) -> None:
    """Let nobody claim from a queue; what runs goes on."""
    from reproq_supervisor.store import controls

    with open_database(options) as connection:
        controls.pause(connection, name, reason)
    if options.output.as_json:
        options.output.show_json({"ok": True, "queue": name, "paused": True})
    else:
        options.output.line(f"{name} is paused; `queue resume {name}` lets it go on")


@queue.command(epilog=example("reproq-supervisor queue resume mail"))
@click.argument("name", metavar="QUEUE")
@common_options
def resume(options: Options, name: str) -> int:
    """Let a paused queue go on. Exit code 1 when it was not paused."""
    from reproq_supervisor.store import controls

    with open_database(options) as connection:
        was_paused = controls.resume(connection, name)
    if options.output.as_json:
        options.output.show_json({"ok": was_paused, "queue": name, "paused": False})
    else:
        options.output.line(f"{name} goes on" if was_paused else f"{name} was not paused")
    return 0 if was_paused else 1
