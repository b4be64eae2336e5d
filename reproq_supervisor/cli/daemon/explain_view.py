"""What `explain` adds to the supervisor's own words: what the executors do, and what waits for them. Plain lines, made of plain data."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reproq_supervisor.cli.values import rough_age, short_name
from reproq_supervisor.core.words import counted

if TYPE_CHECKING:
    from reproq_supervisor.store.commands import QueueStats


def work_line(name: str, pool: Mapping[str, Any]) -> Iterator[str]:
    """Say what the executors of a pool do, and what its living shards have done; nothing when no shard has spoken yet."""
    snapshots = list(pool["snapshots"].values())
    if not snapshots:
        return
    ready = sum(int(snapshot.get("executors", {}).get("ready", 0)) for snapshot in snapshots)
    running, held, claimed, done, failed = (
        sum(int(snapshot.get(key, 0)) for snapshot in snapshots)
        for key in ("running", "held", "claimed_total", "completed_total", "failed_total")
    )
    in_hand = f", {held - running} more in hand" if held > running else ""
    slots = sum(int(snapshot.get("slots", 0)) for snapshot in snapshots)
    match next((snapshot["isolation"] for snapshot in snapshots if "isolation" in snapshot), "reuse"):
        case "fork":
            where = f", {ready} at most, each in a fork of its own"
        case "exec":
            where = f", {ready} at most, each in a program of its own"
        case _:
            where = f" in {counted(ready, 'executor')}" + (f" with {slots} slots" if slots > ready else "")
    yield f"{name} runs {counted(running, 'task')}{where}{in_hand}. So far: {claimed} claimed, {done} done, {failed} failed."


def queue_lines(queues: "Mapping[str, QueueStats]") -> Iterator[str]:
    """Say what waits in each queue, and why nobody takes it."""
    for name, queue in queues.items():
        oldest = "" if queue.oldest_ready_s is None else f", the oldest due for {rough_age(queue.oldest_ready_s)}"
        parked = f", {queue.parked} parked (due later, or waiting for room in a key or rate)" if queue.parked else ""
        waiting = f", {queue.waiting} waiting for other tasks" if queue.waiting else ""
        what = f"{queue.ready} ready{oldest}, {queue.running} running{parked}{waiting}"
        why = f" ({queue.paused})" if queue.paused else ""
        paused = "" if queue.paused is None else f" It is paused{why}; back to work by: reproq-supervisor queue resume {name}"
        yield f"Queue {short_name(name)}: {what}.{paused}"
