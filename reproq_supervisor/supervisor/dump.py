"""What USR2 writes: the whole state as JSON, and the stack of the loop."""

from typing import Any

from reproq_supervisor.telemetry.state_lines import state_lines


def dump_lines(state: dict[str, Any]) -> list[str]:
    """Return *state* and the caller's stack as lines for the log."""
    import traceback  # here, because nobody else needs it in a process that stays small

    stack = "".join(traceback.format_stack())
    return [*state_lines(state), "stack of the loop, most recent call last:", *stack.splitlines()]
