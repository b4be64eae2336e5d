"""Tasks of the tests' project."""

from typing import Any

from reproq_django.framework import task
from reproq_django.limits import limits_concurrency
from reproq_django.recurring import recurring


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


@recurring("30 2 * * *", key="nightly", kwargs={"b": 5}, args=[1], timezone="Europe/Berlin", overlap="skip")
@limits_concurrency("reports", to=2)
@task
def report(a: int, b: int = 1) -> int:
    return a + b


@task(priority=7)
@recurring("@hourly", priority=3, queue_name="default")
def tidy() -> None:
    """Its schedule has the name of its path."""


@task
def rename(group: Any, name: str, after: Any = None) -> list[str]:
    """Take a model and a duration as they were given."""
    before, group.name = group.name, name
    group.save()
    return [before, str(after)]
