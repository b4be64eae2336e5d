"""What `status` shows of the daemon's answer: plain rows and lines, made of plain data."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from reproq_supervisor.cli.values import rough_age
from reproq_supervisor.core.words import counted

Answer = Mapping[str, Any]

# Eighty characters hold them; JSON has the rest. `busy` is running tasks of the slots of ready executors.
POOL_COLUMNS = ("pool", "state", "shards", "busy", "claimed", "done", "failed", "rate", "restarts", "memory")
DUTY_COLUMNS = ("duty", "last run", "took", "next", "changed", "in all", "")
DUTIES_ABREAST = 2
SHORT_DUTY_COLUMNS = DUTY_COLUMNS[:4] * DUTIES_ABREAST
PROCESS_COLUMNS = ("process", "pid", "state", "generation", "up", "memory", "")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the head; *style* is one of rich's."""

    text: str
    style: str | None = None


def head_lines(status: Answer, memory: Mapping[int, int]) -> list[Line]:
    """Return what concerns the daemon as a whole.

    Args:
      memory: bytes by pid of the supervisor and of its children with their families.
    """
    lines = [
        Line(
            f"reproq-supervisor {status['version']}: {status['state']}, pid {status['pid']}, up {rough_age(status['uptime_s'])}, "
            f"generation {status['generation']}",
            "bold",
        ),
        Line(f"  configuration  {status['config_path'] or 'none: defaults'}"),
        _database(status),
        _keeper(status),
    ]
    if memory:
        lines.append(Line(f"  memory         {_size(sum(memory.values()))} in all processes"))
    if status["last_reload"]:
        lines.append(_last_reload(status["last_reload"]))
    if status["stopping"]:
        stopping = status["stopping"]
        lines.append(
            Line(f"  stopping       {stopping['why']}; at most {rough_age(stopping['left_s'])} more ({stopping['phase']})", "yellow")
        )
    return lines


def pool_rows(status: Answer, memory: Mapping[int, int]) -> list[tuple[object, ...]]:
    """Return one row a pool, in the columns of `POOL_COLUMNS`. Totals are of the processes that live now."""
    stopping = status["stopping"] is not None
    return [_pool_row(name, pool, _of_pool(status, name), memory, stopping=stopping) for name, pool in status["pools"].items()]


def process_rows(status: Answer, memory: Mapping[int, int]) -> list[tuple[object, ...]]:
    """Return one row a direct child, in the columns of `PROCESS_COLUMNS`; memory counts what descends from it."""
    return [
        (
            child["child"],
            child["pid"] or "",
            child["state"],
            child["generation"],
            rough_age(child["uptime_s"]),
            _size(memory.get(child["pid"])),
            child["why"] or "",
        )
        for child in status["children"]
    ]


def duty_rows(status: Answer) -> list[tuple[object, ...]]:
    """Return one row a duty of the keeper, in the columns of `DUTY_COLUMNS`; of one that stands by only what it has done."""
    return [
        (
            name,
            "" if duty["last_run_s_ago"] is None else f"{rough_age(duty['last_run_s_ago'])} ago",
            "" if duty["last_run_s_ago"] is None else f"{duty.get('last_took_s', 0.0) * 1000:.1f} ms",
            "" if duty.get("next_run_s") is None else f"in {rough_age(duty['next_run_s'])}",
            duty["last_count"],
            duty["total"],
            _failure(duty),
        )
        for name, duty in _duties(status)
    ]


def short_duty_rows(status: Answer) -> list[tuple[object, ...]]:
    """Return when each duty that this keeper does ran and runs next, in the columns of `SHORT_DUTY_COLUMNS`: read downwards."""
    cells = [row[:4] for row in duty_rows(status) if row[1] or row[3]]
    height = -(-len(cells) // DUTIES_ABREAST)
    columns = [cells[start : start + height] for start in range(0, len(cells), height or 1)]
    return [sum(abreast, ()) for abreast in zip_longest(*columns, fillvalue=("",) * 4)]


def remarks(status: Answer) -> list[Line]:
    """Return what somebody should look at, each with the command that says more."""
    found = [Line(f"the keeper's duty {name} {_failure(duty)}", "red") for name, duty in _duties(status) if duty["error"]]
    for name, pool in status["pools"].items():
        account = pool["account"]
        if account["circuit"] != "closed":
            text = f"{name} is {account['circuit']}: its last process {account['reason']}; more by: reproq-supervisor explain {name}"
            found.append(Line(text, "red"))
        if pool["override"]:
            left_s = pool["override"]["left_s"]
            until = "until the daemon ends" if left_s is None else f"for {rough_age(left_s)} more"
            found.append(Line(f"{name} has {counted(pool['override']['executors'], 'executor')} by hand, {until}", "yellow"))
        found += _locked(name, pool)
        found += _refused(name, pool)
        if pool["paused"]:
            found.append(Line(f"{name} claims nothing, drained by hand; back to work by: reproq-supervisor resume {name}", "yellow"))
    return found


def _duties(status: Answer) -> list[tuple[str, Answer]]:
    return list((status["keeper"]["snapshot"].get("duties") or {}).items())


def _failure(duty: Answer) -> str:
    """Tell in a line what keeps a duty from its work, JSON has all of it; nothing when it works, whatever happened before."""
    if not duty["error"]:
        return ""
    times = duty.get("failed_in_a_row", 1)
    first, *more = str(duty["error"]).splitlines()
    return f"failed{f' {times} times in a row' if times > 1 else ''}: {first}{' …' if more else ''}"


def _locked(name: str, pool: Answer) -> list[Line]:
    """Tell of ends that cannot be written."""
    locked = _troubled(pool, "locked_endings")
    if not locked:
        return []
    what = f"{name} cannot write the end of {_named(locked)}"
    return [Line(f"{what}: a transaction that was left open locks their rows; see pg_stat_activity", "red")]


def _refused(name: str, pool: Answer) -> list[Line]:
    """Tell of what PostgreSQL refuses to write."""
    refused = _troubled(pool, "refused")
    if not refused:
        return []
    what = f"PostgreSQL refuses what {name} writes of {_named(refused)}: {refused[0]['error']}"
    return [Line(f"{what}; results are kept and tried again, at least once a minute. Look at the triggers on task_runs", "red")]


def _troubled(pool: Answer, key: str) -> list[Answer]:
    return [each for snapshot in pool["snapshots"].values() if (each := snapshot.get(key) or {}).get("count")]


def _named(troubled: list[Answer]) -> str:
    count, named = sum(int(each["count"]) for each in troubled), [str(run) for each in troubled for run in each["first"]]
    return f"{counted(count, 'task')} ({', '.join([*named, *(['…'] if count > len(named) else [])])})"


def recycled_lines(status: Answer) -> list[Line]:
    """Return one line a pool that has recycled executors, with the rules they met."""
    found = []
    for name, pool in status["pools"].items():
        counts: Counter[str] = Counter()
        for snapshot in pool["snapshots"].values():
            counts.update(snapshot.get("recycled") or {})
        if told := ", ".join(f"{count} by {reason}" for reason, count in sorted(counts.items()) if count):
            found.append(Line(f"{name}: executors recycled: {told}"))
    return found


def _pool_row(name: str, pool: Answer, children: list[Answer], memory: Mapping[int, int], *, stopping: bool) -> tuple[object, ...]:
    snapshots = list(pool["snapshots"].values())
    executors = _sums(snapshots, "executors", "ready", "booting")
    booting = f" +{executors['booting']}" if executors["booting"] else ""
    slots = sum(int(snapshot.get("slots", snapshot.get("executors", {}).get("ready", 0))) for snapshot in snapshots)
    sizes = [memory[child["pid"]] for child in children if child["pid"] in memory]
    return (
        name,
        _pool_state(pool, snapshots, [child["state"] for child in children], stopping=stopping),
        f"{pool['ready']}/{pool['shards']}",
        f"{sum(snapshot.get('running', 0) for snapshot in snapshots)}/{slots}{booting}",
        *(sum(snapshot.get(f"{key}_total", 0) for snapshot in snapshots) for key in ("claimed", "completed", "failed")),
        f"{sum(snapshot.get('rate_per_s', 0.0) for snapshot in snapshots):.0f}/s",
        sum(max(0, unit["starts"] - 1) for unit in pool["account"]["units"].values()),
        _size(sum(sizes) if sizes else None),
    )


def _pool_state(pool: Answer, snapshots: list[Answer], children: list[str], *, stopping: bool) -> str:
    """Return the one word that matters most."""
    if stopping:
        return "stopping" if children else "stopped"
    if pool["account"]["circuit"] != "closed":
        return str(pool["account"]["circuit"])
    if any(not _database_of(snapshot).get("up", True) for snapshot in snapshots):
        return "no database"
    if pool["paused"]:
        return "drained"
    return "ready" if pool["ready"] >= pool["shards"] else "starting"


def _database(status: Answer) -> Line:
    kind = "embedded" if status["embedded"] else "external"
    talks = [_database_of(snapshot) for pool in status["pools"].values() for snapshot in pool["snapshots"].values()]
    talks += [_database_of(status["keeper"]["snapshot"])] if status["keeper"]["snapshot"] else []
    down = [talk for talk in talks if talk.get("up") is False]
    if not talks and status["stopping"]:
        return Line(f"  database       {kind}, nobody is connected any more")
    if not talks:
        return Line(f"  database       {kind}, nobody has connected yet", "yellow")
    if not down:
        return Line(f"  database       {kind}, up")
    error = next((str(talk["error"]) for talk in down if talk.get("error")), None)
    if error is None:
        return Line(f"  database       {kind}, {len(down)} of {len(talks)} processes are connecting", "yellow")
    since_s = max(float(talk.get("since_s") or 0.0) for talk in down)
    return Line(f"  database       {kind}, down for {rough_age(since_s)} for {len(down)} of {len(talks)} processes: {error}", "red")


def _keeper(status: Answer) -> Line:
    keeper = status["keeper"]
    if status["stopping"] and not keeper["ready"]:
        return Line("  keeper         stopped")
    restarts = sum(max(0, unit["starts"] - 1) for unit in keeper["account"]["units"].values())
    again = f", {restarts} restarts" if restarts else ""
    dead = f", {counted(status['dead_workers'], 'dead worker')} to release" if status["dead_workers"] else ""
    state = f"ready{_term(keeper['snapshot'])}" if keeper["ready"] else "not ready"
    return Line(f"  keeper         {state}{again}{dead}", None if keeper["ready"] else "yellow")


def _term(snapshot: Answer) -> str:
    term = snapshot.get("term")
    if not term:
        return ""
    return (
        f", acts for {rough_age(term['since_s'])}"
        if term["acts"]
        else f", stands by: {term['holder']} acts for {rough_age(term['since_s'])}"
    )


def _last_reload(last: Answer) -> Line:
    when = f"  last change    {last['what']}, {rough_age(last['ended_s_ago'])} ago"
    if last["ok"]:
        return Line(f"{when}: {'done' if last['changed'] else 'nothing had changed'}")
    return Line(f"{when}, refused: {last['error']}", "red")


def _of_pool(status: Answer, name: str) -> list[Answer]:
    return [child for child in status["children"] if child["pool"] == name]


def _database_of(snapshot: Answer) -> Answer:
    found: Answer = snapshot.get("database") or {}
    return found


def _sums(snapshots: list[Answer], group: str, *keys: str) -> dict[str, int]:
    return {key: sum(int(snapshot.get(group, {}).get(key, 0)) for snapshot in snapshots) for key in keys}


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 2**20:.1f} MiB"
