"""What USR2 writes: the whole state as JSON, and the stack of the loop."""

import json
from typing import Any

from reproq_supervisor.telemetry.keys import presentable


def dump_lines(state: dict[str, Any]) -> list[str]:
    """Return *state* and the caller's stack as lines for the log."""
    import traceback  # here, because nobody else needs it in a process that stays small

    text = json.dumps(presentable("state", state), indent=1, ensure_ascii=False)
    stack = "".join(traceback.format_stack())
    return [*text.splitlines(), "stack of the loop, most recent call last:", *stack.splitlines()]
