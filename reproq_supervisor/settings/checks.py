"""Rules that join several settings.

What would run tasks in another way than asked for is an error; a duty that nobody does yet is told by `advise`.
"""

from collections.abc import Iterator, Sequence

from reproq_supervisor.core.work import PayloadMode
from reproq_supervisor.settings.document import Path
from reproq_supervisor.settings.finding import Finding
from reproq_supervisor.settings.machine import check_machine
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.pools import Exec, Isolation, Mode, Pool
from reproq_supervisor.settings.units import format_duration

MOST_SLOTS = 500
"""The token pipe of an executor must hold a token for each of its runs, at the least size that the kernel gives a pipe (two pages)."""


def check_together(settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong with settings whose single values are all valid."""
    for name, pool in settings.pools.items():
        at: Path = ("pools", name)
        yield from _check_sizes(at, pool)
        yield from _check_deadlines(at, pool)
        yield from _check_pool_is_available(at, pool)
        yield from _check_payload(at, pool, settings.app.allowed_task_modules)
        yield from check_machine(at, pool)
        if pool.limits.cpu_time is not None and pool.isolation is Isolation.REUSE:
            path = (*at, "limits", "cpu_time")
            message = "expected null with isolation reuse, where a process runs many tasks"
            yield Finding(path, (path, (*at, "isolation")), message, "isolation: fork or exec, or use timeout")
    yield from _check_budget(settings)
    for name, queue in settings.queues.items():
        if queue.retry_base is not None and queue.retry_cap is not None and queue.retry_base > queue.retry_cap:
            path = ("queues", name, "retry_base")
            message = f"expected at most retry_cap ({format_duration(queue.retry_cap)}), got {format_duration(queue.retry_base)}"
            yield Finding(path, (path, ("queues", name, "retry_cap")), message)


def advise(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, advice) for what is valid and probably not meant, or has no effect."""
    if not settings.app.allowed_task_modules:
        yield "app.allowed_task_modules", "is empty: no task may run"
    elif "*" in settings.app.allowed_task_modules:
        yield "app.allowed_task_modules", 'has "*": whoever can insert a row can run any function; for development only'
    served = {name for pool in settings.pools.values() for name in pool.queues}
    for name in settings.queues:
        if name not in served:
            yield f"queues.{name}", "is served by no pool of this file"
    for name, pool in settings.pools.items():
        if pool.exec != Exec() and pool.isolation is not Isolation.EXEC:
            yield f"pools.{name}.exec", "has no effect without isolation: exec"
        if pool.isolation is not Isolation.REUSE and (pool.recycle.tasks or pool.recycle.rss or pool.recycle.age):
            yield f"pools.{name}.recycle", f"has no effect with isolation {pool.isolation}: every task has a fresh process"
    for key, is_asked_for in _duties_of_later(settings):
        if is_asked_for:
            yield key, "has no effect yet in this version"


def _duties_of_later(settings: Settings) -> Iterator[tuple[str, bool]]:
    """Yield (dotted key, is it asked for?) of what nobody does yet."""
    yield "web.listen", settings.web.listen is not None


def _check_sizes(at: Path, pool: Pool) -> Iterator[Finding]:
    ranges = (
        ("executors", pool.executors.min, pool.executors.max),
        ("slots", pool.slots.min, pool.slots.max),
        ("poll", pool.poll.min, pool.poll.max),
    )
    for key, low, high in ranges:
        if low > high:
            path = (*at, key, "min")
            yield Finding(path, (path, (*at, key, "max")), f"expected at most max ({high:g}), got {low:g}")
    if pool.retry.base > pool.retry.cap:
        path = (*at, "retry", "base")
        message = f"expected at most cap ({format_duration(pool.retry.cap)}), got {format_duration(pool.retry.base)}"
        yield Finding(path, (path, (*at, "retry", "cap")), message)
    if pool.shards > pool.executors.max:
        path = (*at, "shards")
        message = f"expected at most executors.max ({pool.executors.max}), got {pool.shards}"
        yield Finding(path, (path, (*at, "executors", "max")), message, "every shard needs an executor")


def _check_budget(settings: Settings) -> Iterator[Finding]:
    """The least of each pool is given in any case, and one to each that has work, so that must not be more than there is."""
    pools = settings.pools.values()
    least = {
        "executors": sum(max(1, pool.executors.min) for pool in pools),
        "connections": sum(max(1, pool.executors.min) * pool.slots.max for pool in pools),
    }
    for key, needed in least.items():
        allowed: int | None = getattr(settings.budget, key)
        if allowed is not None and allowed < needed:
            path: Path = ("budget", key)
            yield Finding(
                path, (path,), f"expected at least {needed}, which the least of all pools takes, got {allowed}", "fewer executors.min"
            )


def _check_deadlines(at: Path, pool: Pool) -> Iterator[Finding]:
    """A hung shard must be found and killed well before its leases end, and a task must have time to die in."""
    lease, heartbeat, grace = (*at, "lease"), (*at, "heartbeat"), (*at, "grace")
    if 3 * pool.heartbeat >= pool.lease / 3:
        message = f"expected less than a ninth of the lease ({format_duration(pool.lease)}), got {format_duration(pool.heartbeat)}"
        hint = f"a lease above {format_duration(9 * pool.heartbeat)}, or a shorter heartbeat"
        yield Finding(heartbeat, (heartbeat, lease), message, hint)
    if pool.grace >= pool.lease:
        message = f"expected less than the lease ({format_duration(pool.lease)}), got {format_duration(pool.grace)}"
        yield Finding(grace, (grace, lease), message)


def _check_payload(at: Path, pool: Pool, allowed: Sequence[str]) -> Iterator[Finding]:
    """Arguments can be read by everybody on the machine: a configuration that says it is for development may put payloads there."""
    if pool.exec.payload is PayloadMode.INLINE and "*" not in allowed:
        path: Path = (*at, "exec", "payload")
        hint = 'inline is for development, where app.allowed_task_modules has "*": everybody on the machine can read arguments'
        yield Finding(path, (path, ("app", "allowed_task_modules")), "expected stdin or file, got inline", hint)


def _check_pool_is_available(at: Path, pool: Pool) -> Iterator[Finding]:
    if pool.isolation is not Isolation.REUSE and pool.mode is not Mode.PROCESS:
        path = (*at, "isolation")
        message = f"expected reuse in mode {pool.mode}, got {pool.isolation}"
        yield Finding(path, (path, (*at, "mode")), message, "a task of its own process needs mode: process")
    if pool.slots.max > 1 and pool.mode is Mode.PROCESS:
        path = (*at, "slots")
        message = f"expected 1 in mode {pool.mode}, got {pool.slots.max}"
        yield Finding(path, (path, (*at, "mode")), message, "several tasks in one executor need mode: thread or async")
    elif pool.slots.max > MOST_SLOTS:
        path = (*at, "slots")
        yield Finding(path, (path,), f"expected at most {MOST_SLOTS}, got {pool.slots.max}", "more executors give more room")
