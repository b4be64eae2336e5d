"""Runs as the text of a COPY, a line at once: value by value it costs the client half as much again for each row."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.hashes import hash_of

# Runs of the first COPY; then twice as many each time, so that the next are written before the server has done with these. What its
# trigger reads once more is in memory still: one COPY of 50,000 runs keeps them in a file, and takes the server a fifth longer for each.
_FIRST = 1000
_MOST = 4000
_MOST_CHARACTERS = 4_000_000
# Whoever sends a part to the server needs the interpreter twice before its end, and gets it from a thread that computes after 5 ms only, in
# which the server has nothing to do. So this one lets go of it now and then, for as short as a timer can.
_LINES_AT_A_STRETCH = 100
_BREATH_S = 50e-6


Check = Callable[[NewRun], None]


def parts_of(runs: Sequence[NewRun], ids: Sequence[RunId], now: datetime, check: Check | None = None) -> Iterator[bytes]:
    """Yield *runs* under *ids* in parts, each for one `enqueue_by_copy`; delays count from *now*.

    Args:
      check: called with each run of a part first, so that this, too, is done while the server works; what it raises goes to the caller.

    Raises:
      ValueError, TypeError: an argument is no JSON.
    """
    lines: list[str] = []
    size, most = 0, _FIRST
    for run, id_ in zip(runs, ids, strict=True):
        if check:
            check(run)
        lines.append(line := _line(run, id_, now))
        size += len(line)
        if len(lines) % _LINES_AT_A_STRETCH == 0:
            time.sleep(_BREATH_S)
        if len(lines) >= most or size >= _MOST_CHARACTERS:
            yield "".join(lines).encode()
            lines.clear()
            size, most = 0, min(2 * most, _MOST)
    if lines:
        yield "".join(lines).encode()


def _line(run: NewRun, result_id: RunId, now: datetime) -> str:
    spec = run.spec()
    due_at = run.run_after or _later(now, run.delay_s)
    # Of what COPY takes as a sign of its own, JSON has nothing but backslashes.
    escaped = spec.replace("\\", "\\\\")
    keys = f"{_text(run.lock_key)}\t{_text(run.concurrency_key)}\t{run.concurrency_limit}"
    expires_at = _later(now, run.expires_in_s) or _NULL
    return (
        f"{result_id}\t{_text(run.queue_name)}\t{run.priority}\t{due_at or _NULL}\t{escaped}\t{hash_of(spec)}\t{_text(run.task_path)}\t"
        f"READY\t{run.max_attempts}\t{run.timeout_seconds}\t{keys}\t{expires_at}\t{_text(run.backend_alias)}\t{_NULL}\n"
    )


def _later(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)


_NULL = "\\N"
_SIGNS = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


# Names of queues and tasks come again and again.
@lru_cache(maxsize=1024)
def _text(value: str | None) -> str:
    return _NULL if value is None else value.translate(_SIGNS)
