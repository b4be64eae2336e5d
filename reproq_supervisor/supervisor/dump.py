"""What USR2 writes: the whole state as one JSON text, and the stack of the loop."""

import faulthandler
import json
import sys
from typing import Any

from reproq_supervisor.telemetry.keys import presentable


def dump_state(state: dict[str, Any]) -> None:
    """Write *state* and our stacks to standard error. For a person who debugs: this one may wait for its reader."""
    sys.stderr.write(json.dumps(presentable("state", state), indent=1) + "\n")
    sys.stderr.flush()
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
