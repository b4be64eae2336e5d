"""`enqueue`: tasks from the command line."""

import re
from typing import Any

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example
from reproq_supervisor.cli.values import MOST_INT32, as_delay, as_duration, as_json, as_queue, as_text

_TASK_PATH = re.compile(r"[^\W\d]\w*([.:][^\W\d]\w*)+")
_MOST_AT_ONCE = 1_000_000


@click.command(
    epilog=example(
        """reproq-supervisor enqueue myapp.tasks.send --args '["a@b.c"]'""",
        """reproq-supervisor enqueue myapp.tasks.send --kwargs '{"to": "a@b.c"}' --queue mail --delay 10m""",
        "reproq-supervisor enqueue myapp.tasks.ping --count 1000",
        "reproq-supervisor enqueue myapp.tasks.sync --concurrency-key account:7 --concurrency-limit 2",
    )
)
@click.argument("task_path", metavar="TASK_PATH")
@click.option("--args", "args", metavar="JSON", callback=as_json(list, '[1, "two"]'), default="[]", help="Arguments, a JSON list.")
@click.option("--kwargs", "kwargs", metavar="JSON", callback=as_json(dict, '{"to": "me"}'), default="{}", help="Arguments by name.")
@click.option("--queue", metavar="NAME", callback=as_queue, default="default", show_default=True)
@click.option("--priority", metavar="N", type=click.IntRange(-MOST_INT32 - 1, MOST_INT32), default=0, help="Higher runs earlier.")
@click.option("--count", metavar="N", type=click.IntRange(1, _MOST_AT_ONCE), default=1, help="Insert that many.")
@click.option("--delay", metavar="DURATION", callback=as_delay, help="Due that long from now, not at once.")
@click.option("--timeout", metavar="DURATION", callback=as_duration, default="15m", show_default=True, help="Killed after that long.")
@click.option("--max-attempts", metavar="N", type=click.IntRange(1, MOST_INT32), default=3, show_default=True)
@click.option("--dedupe", is_flag=True, help="Give the id of an unfinished task of the same content instead of a new one.")
@click.option("--lock-key", metavar="KEY", callback=as_text, help="Never run beside another task with this key.")
@click.option("--concurrency-key", metavar="KEY", callback=as_text, help="Run beside fewer than --concurrency-limit tasks with this key.")
@click.option("--concurrency-limit", metavar="N", type=click.IntRange(1, MOST_INT32), help="How many tasks with the key may run at once.")
@common_options
def enqueue(options: Options, task_path: str, queue: str, count: int, delay: float | None, timeout: float, **given: Any) -> None:
    """Insert tasks to run.

    Prints the result ids, one a line. All tasks of a call are inserted, or none.
    """
    from reproq_supervisor.store import commands

    if not _TASK_PATH.fullmatch(task_path):
        raise click.BadParameter(f"expected the dotted name of a task such as myapp.tasks.send, got {task_path!r}", param_hint="TASK_PATH")
    if given["dedupe"] and count > 1:
        raise click.UsageError("--dedupe and --count: expected one of them, got both: tasks of the same content would be one")
    if not 1 <= timeout <= MOST_INT32 or timeout % 1:
        raise click.BadParameter(f"expected whole seconds, at least 1, got {timeout:g}", param_hint="--timeout")
    if (given["concurrency_key"] is None) != (given["concurrency_limit"] is None):
        raise click.UsageError("--concurrency-key and --concurrency-limit: expected both or none, got one of them")
    given["concurrency_limit"] = given["concurrency_limit"] or 0
    run = commands.NewRun(task_path, queue_name=queue, delay_s=delay, timeout_seconds=int(timeout), **given)
    with open_database(options) as connection:
        ids = commands.enqueue(connection, [run] * count)
    if options.output.as_json:
        options.output.show_json({"ok": True, "ids": ids})
    else:
        click.echo("\n".join(map(str, ids)))
