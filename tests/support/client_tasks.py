"""Tasks as an application writes them."""

from typing import Any

from reproq_supervisor import TaskContext
from reproq_supervisor.client import task


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task(queue="mail", priority=3, max_attempts=5, timeout=60, lock_key="account:{account_id}")
def send(account_id: int, subject: str = "hello", **more: Any) -> dict[str, Any]:
    return {"account_id": account_id, "subject": subject, **more}


@task(takes_context=True, concurrency_key=lambda name: name and f"name:{name}", concurrency_limit=2)
def whoami(context: TaskContext, name: str) -> list[Any]:
    return [context.result_id, context.attempt, name]


@task
async def later(value: str) -> str:
    return value.upper()


class Reports:
    @task
    @staticmethod
    def monthly(month: int) -> str:
        return f"report of {month}"
