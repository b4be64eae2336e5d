"""`reload`: the new configuration, or the old one and the reason."""

import json
from typing import Any

import click

from reproq_supervisor.cli.daemon.control import ask
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
    output.table(["key", "old", "new", "how"], [_row(change) for change in plan])
    if not dry_run:
        output.line(f"reloaded; generation {answer.get('generation')}")


def _row(change: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return a line for people: a whole pool that comes or goes is named, not spelled out."""
    old, new, how = change.get("old"), change.get("new"), _MEANINGS[change["class"]]
    if isinstance(old, dict) and new is None:
        return change["key"], "there", "removed", "at once; what runs may finish" if change["key"].startswith("pools.") else how
    if isinstance(new, dict) and old is None:
        return change["key"], "none", "added", how
    return change["key"], _text(old), _text(new), how


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
