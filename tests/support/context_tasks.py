"""Tasks that ask and tell about their own run."""

import threading
import time
from pathlib import Path
from typing import Any

from reproq_supervisor import Retry, TaskContext
from reproq_supervisor.client import current, task


@task
def who() -> list[Any]:
    context = current()
    limit = context.deadline
    return [context.result_id, context.attempt, context.queue_name, limit is not None, 0 < context.remaining <= 30]


@task
async def who_later() -> list[Any]:
    return who.func()


@task(takes_context=True)
def count_attempts(context: TaskContext) -> dict[str, Any]:
    """Fail twice; every attempt finds what the one before it noted."""
    context.metadata.setdefault("attempts", []).append(context.attempt)
    if context.attempt < 3:
        raise Retry(delay_s=0)
    return context.metadata


@task(takes_context=True)
def work_until(context: TaskContext, go: str) -> str:
    """Note progress, then wait until the file is there."""
    for done in range(3):
        context.progress(done + 1, 4, f"step {done + 1}")
    wait_for(go)
    context.progress(4, 4)
    return "done"


@task(takes_context=True)
async def work_until_later(context: TaskContext, go: str) -> str:
    import asyncio

    context.progress(3, 4, "step 3")
    while not Path(go).exists():
        await asyncio.sleep(0.02)
    context.progress(4, 4)
    return "done"


@task(takes_context=True)
def die_after_a_note(context: TaskContext) -> None:
    context.metadata["last_words"] = context.attempt
    context.save_metadata()
    kill_executor()


@task(takes_context=True)
def flood(context: TaskContext, count: int) -> int:
    """Tell much, from several threads at once."""

    def tell(number: int) -> None:
        for at in range(count):
            context.metadata[str(number)] = at
            context.save_metadata()

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return count


@task(takes_context=True)
def wait_for_cancel(context: TaskContext) -> None:
    """Be cancelled, and note down that it was."""
    context.progress(0, 1)
    try:
        while True:
            time.sleep(0.01)
    finally:
        context.metadata["was_cancelled"] = context.cancel_requested


def wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.02)


def kill_executor() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
