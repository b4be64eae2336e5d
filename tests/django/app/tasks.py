"""Tasks of the tests' project."""

from typing import Any

from reproq_django.framework import task


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def fail(message: str) -> None:
    raise ValueError(message)


@task
async def double(number: int) -> int:
    return number * 2


@task(takes_context=True)
def describe(context: Any, *args: Any, **kwargs: Any) -> str:
    return f"attempt {context.attempt}"


def plain() -> None:
    """Not a task."""
