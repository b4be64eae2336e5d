"""Tasks that know how they are run: they take a context, and say what is to follow."""

from dataclasses import asdict

from reproq_supervisor import Fail, Retry, TaskContext


def tell_context(context: TaskContext, *args: str) -> list[object]:
    """Return the context as a mapping, and the other arguments. Its spec says `takes_context`."""
    return [asdict(context), *args]


def ask_for_a_retry(delay_s: float) -> None:
    """Fail, and ask to run again after *delay_s* seconds."""
    raise Retry("later, please", delay_s=delay_s)


def give_up(reason: str) -> None:
    """Fail for good, however many attempts are left."""
    raise Fail(reason)
