"""How `triage` shows places in its list, and the whole story of a task."""

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from reproq_supervisor.cli.tasks.result import headline, plain, remark
from reproq_supervisor.core.runs import TERMINAL

if TYPE_CHECKING:
    from datetime import datetime

    from reproq_supervisor.cli.output import Output
    from reproq_supervisor.store.story import Story
    from reproq_supervisor.store.triage import Place

_PLACE = re.compile(r"(-?infinity|[0-9][0-9T:.+-]{9,39})/([0-9]{1,18})")


def as_place(ctx: click.Context, param: click.Parameter, value: str | None) -> "Place | None":
    """Return the place in the list that `place_words` named."""
    from reproq_supervisor.store.triage import Place

    if value is None:
        return None
    match = _PLACE.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"expected the word that the list before ended with, got {value!r}", ctx, param)
    return Place(match[1], int(match[2]))


def place_words(place: "Place | None") -> str | None:
    """Return the word that names *place*."""
    return None if place is None else f"{place.at}/{place.result_id}"


def story_data(story: "Story") -> dict[str, Any]:
    """Return the story as JSON data."""
    details = {name: _isoformat(value) for name, value in asdict(story.details).items()}
    return {
        **plain(story.run),
        **details,
        "key_holders": [asdict(each) for each in story.key_holders],
        "children": [asdict(each) for each in story.children],
        "workflow": None if story.workflow is None else asdict(story.workflow),
    }


def show_story(output: "Output", story: "Story") -> None:
    """Write the story for people."""
    run = story.run
    output.line(f"{run.result_id} {run.task_path}", style="bold")
    for name, value in _facts(story):
        if value is not None:
            output.line(f"  {name:<16}{value}")
    for holder in story.key_holders:
        who = "this task" if holder.result_id == run.result_id else f"task {holder.result_id}"
        output.line(f"  {'key':<16}{holder.key}: held by {who}, in {holder.leased_by}")
    for child in story.children:
        output.line(f"  {'waits for it':<16}{child.result_id} {child.task_path}: {child.status}")
    output.line(f"  {'spec':<16}{json.dumps(story.details.spec, ensure_ascii=False)}")
    for error in run.errors_json if isinstance(run.errors_json, list) else ():
        if isinstance(error, dict):
            output.line(f"  {error.get('at', '')} {headline(error)}".rstrip(), style="red")
            for line in str(error.get("traceback") or "").splitlines():
                output.line(f"    {line}")


def _facts(story: "Story") -> list[tuple[str, object]]:
    run, details, workflow = story.run, story.details, story.workflow
    has_limit = details.concurrency_key and details.concurrency_limit > 0
    chord = "" if workflow is None or workflow.status is None else f", {workflow.status}, callback {workflow.callback}"
    return [
        ("status", f"{run.status}{remark(run)}"),
        ("queue", f"{run.queue_name}, priority {run.priority}"),
        ("attempts", f"{run.attempts} of {run.max_attempts}"),
        ("enqueued", _at(run.enqueued_at)),
        ("due", _at(run.due_at) if run.status not in TERMINAL else None),
        ("started", _at(run.started_at)),
        ("last attempt", _at(details.last_attempted_at)),
        ("finished", _at(run.finished_at)),
        ("expires", _at(details.expires_at)),
        ("time limit", f"{details.timeout_s} s"),
        ("held by", run.leased_by or None),
        ("lease", f"number {details.lease_no}, until {_at(details.leased_until)}" if details.leased_until else None),
        ("given back", f"{details.releases} times" if details.releases else None),
        ("crashes", details.crashes or None),
        ("parked on", details.on_key),
        ("lock key", details.lock_key or None),
        ("concurrency key", f"{details.concurrency_key}, {details.concurrency_limit} at once" if has_limit else None),
        ("deduplicated", "yes" if details.is_deduped else None),
        ("workers", ", ".join(map(str, details.worker_ids)) if details.worker_ids else None),
        ("waits for", details.parent_id),
        ("workflow", None if workflow is None else f"{workflow.workflow_id}{chord}"),
        ("its tasks", None if workflow is None else ", ".join(f"{count} {status}" for status, count in workflow.runs.items())),
        ("last error", run.last_error),
        ("result", None if run.return_json is None else json.dumps(run.return_json, ensure_ascii=False)),
        ("output", f"reproq-supervisor logs {run.result_id}" if run.logs_uri else None),
        ("metadata", json.dumps(details.metadata, ensure_ascii=False) if details.metadata else None),
    ]


def _at(moment: "datetime | None") -> str | None:
    return None if moment is None else moment.isoformat(sep=" ", timespec="milliseconds")


def _isoformat(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
