"""Tasks that know how they are run: they take a context, and say what is to follow."""

from reproq_supervisor import Fail, Retry, TaskContext


def tell_context(context: TaskContext, *args: str) -> list[object]:
    """Return who the context says it is, and the other arguments. Its spec says `takes_context`."""
    names = ("result_id", "attempt", "max_attempts", "task_path", "queue_name", "priority")
    return [{name: getattr(context, name) for name in names}, *args]


def ask_for_a_retry(delay_s: float) -> None:
    """Fail, and ask to run again after *delay_s* seconds."""
    raise Retry("later, please", delay_s=delay_s)


def give_up(reason: str) -> None:
    """Fail for good, however many attempts are left."""
    raise Fail(reason)
