"""`reload`: the new configuration, or the old one and the reason."""

import json

import click

from reproq_supervisor.cli.control import ask
from reproq_supervisor.cli.options import Options, common_options, example

_MEANINGS = {"live": "at once", "rolling": "new processes beside the old", "restart": "needs a restart of the daemon: not done"}


@click.command(epilog=example("reproq-supervisor reload --dry-run", "reproq-supervisor reload"))
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@common_options
def reload(options: Options, dry_run: bool) -> None:
    """Apply a changed configuration, or keep the old and say why.

    All is validated first: with any problem nothing changes and every problem is told (exit code 78). New processes must become ready
    beside the old ones; if they do not, the old ones stay (exit code 1).
    """
    answer = ask(options, "reload", timeout_s=None, dry_run=dry_run)
    output = options.output
    if output.as_json:
        output.show_json({"ok": True, **answer})
        return
    plan = answer.get("plan", [])
    if not plan:
        output.line("nothing to change" if dry_run else f"nothing changed; generation {answer.get('generation')}")
        return
    rows = [(change["key"], _text(change.get("old")), _text(change.get("new")), _MEANINGS[change["class"]]) for change in plan]
    output.table(["key", "old", "new", "how"], rows)
    if not dry_run:
        output.line(f"reloaded; generation {answer.get('generation')}")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
