"""Tasks that complete themselves, and die in all the places where that could matter. Each leaves one row in `effects` for what it did."""

import os
import signal
from typing import Any

from reproq_supervisor import Fail, TaskContext
from reproq_supervisor.client import current, task
from reproq_supervisor.executor.completing import Completion

INSERT = "INSERT INTO effects (run, attempt) VALUES (%s, %s)"


def leave_effect(context: TaskContext, connection: Any) -> None:
    connection.execute(INSERT, (int(context.result_id), context.attempt))


@task(takes_context=True)
def write(context: TaskContext, value: Any = None) -> Any:
    context.metadata["wrote"] = True
    print("some output")  # noqa: T201 - it is to be captured
    with context.completing() as connection:
        leave_effect(context, connection)
        return value


@task(takes_context=True)
async def write_later(context: TaskContext, value: Any = None) -> Any:
    context.metadata["wrote"] = True
    print("some output")  # noqa: T201 - it is to be captured
    async with context.completing() as connection:
        await connection.execute(INSERT, (int(context.result_id), context.attempt))
        return value


@task(takes_context=True)
def die(context: TaskContext, where: str) -> str:
    """Die in the first attempt, at one point; the second one lives."""
    doomed = context.attempt == 1
    if doomed and where == "before":
        kill_self()
    with context.completing() as connection:
        if doomed and where == "empty":
            kill_self()
        leave_effect(context, connection)
        if doomed and where == "within":
            kill_self()
    if doomed and where == "after the block":
        kill_self()
    if doomed and where == "after the end, uncommitted":
        die_instead_of_commit()
    if doomed and where == "after the commit":
        die_after(Completion, "finish")
    return where


def die_after(owner: Any, method: str) -> None:
    """Die when *method* has done its work; this process runs nothing else."""
    finish = getattr(owner, method)

    def finish_and_die(*args: Any) -> None:
        finish(*args)
        kill_self()

    setattr(owner, method, finish_and_die)


def die_instead_of_commit() -> None:
    import psycopg

    psycopg.Transaction._exit_gen = lambda *_: kill_self()  # type: ignore[method-assign, assignment, return-value]


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(takes_context=True)
def go_wrong(context: TaskContext, how: str) -> Any:
    """Do what undoes the block; the effect must not be there."""
    if how == "it asks twice":
        with context.completing() as connection:
            leave_effect(context, connection)
        context.completing()
    with context.completing() as connection:
        leave_effect(context, connection)
        match how:
            case "the block fails":
                raise Fail("no")
            case "it ends the transaction":
                connection.execute("ROLLBACK")
                connection.execute("BEGIN")
            case "it commits":
                connection.commit()
            case "the server ends the connection":
                connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            case "the statement fails":
                connection.execute("SELECT 1 / 0")
    match how:
        case "the task fails after it":
            raise Fail("no")
        case "the result is none":
            return object()
        case "PostgreSQL takes no such result":
            return "\ud800"
        case "a constraint of the record refuses":
            return "forbidden"
    return None


@task(takes_context=True)
def swallow(context: TaskContext) -> str:
    """Go on after a block that failed: the run succeeds, without its writes."""
    try:
        with context.completing() as connection:
            leave_effect(context, connection)
            raise KeyError
    except KeyError:
        return "swallowed"


@task(takes_context=True)
def write_when_told(context: TaskContext, go: str) -> str:
    """Hold the block open until the file is there."""
    from tests.support.context_tasks import wait_for

    with context.completing() as connection:
        leave_effect(context, connection)
        context.progress(1, 2)
        wait_for(go)
        return "mine"


@task
def look_for_secrets() -> dict[str, Any]:
    """Return where this process, or its parents, could show the database to others."""
    from pathlib import Path

    seen = {}
    for pid in (os.getpid(), os.getppid()):
        seen[f"cmdline {pid == os.getpid()}"] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
        seen[f"environ {pid == os.getpid()}"] = Path(f"/proc/{pid}/environ").read_text(errors="replace").replace("\0", " ")
    sockets = [os.readlink(f"/proc/{os.getppid()}/fd/{fd}") for fd in os.listdir(f"/proc/{os.getppid()}/fd")]
    seen["sockets of the nursery"] = sum(link.startswith("socket:") for link in sockets)
    seen["driver"] = "psycopg" in __import__("sys").modules
    seen["limit"] = current().remaining > 0
    return seen
