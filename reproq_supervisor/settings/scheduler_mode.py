"""REPROQ_SCHEDULER_MODE: who fires schedules, in the contract's words."""

from collections.abc import Mapping

VARIABLE = "REPROQ_SCHEDULER_MODE"


def does_beat(environ: Mapping[str, str]) -> bool | None:
    """Answer whether processes of ours fire schedules by themselves; None where the variable says nothing.

    The words are beat, cron, pg_cron and disabled. Only the first means us: whatever else stands there, somebody wanted something else.
    """
    mode = environ.get(VARIABLE, "").strip().lower()
    return mode == "beat" if mode else None
