"""The state of a process as lines of the log, for a person who debugs."""

import json
from collections.abc import Mapping
from typing import Any

from reproq_supervisor.telemetry.keys import presentable
from reproq_supervisor.telemetry.lines import LogFormat
from reproq_supervisor.telemetry.log import Log

LOG_FD = 2


def state_lines(state: Mapping[str, Any]) -> list[str]:
    """Return *state* as JSON in lines, without secrets."""
    return json.dumps(presentable("state", dict(state)), indent=1, ensure_ascii=False).splitlines()


def write_state(child: str, state: Mapping[str, Any]) -> None:
    """Write the state of a child to the log; a reader that does not read loses it."""
    Log(LOG_FD, LogFormat.LOGFMT).write_lines([f"state of {child}:", *state_lines(state)])
