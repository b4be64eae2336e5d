"""Runs as the text of a COPY, a line at once: value by value it costs the client half as much again for each row."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.hashes import hash_of

# Runs and characters of one COPY. The server takes it in while the next is made; with four times as many a bulk took a few percent longer.
# What its trigger reads once more is in memory still: one COPY of 50,000 runs keeps them in a file, which takes a fifth longer for each.
_MOST = 1000
_MOST_CHARACTERS = 1_000_000

Check = Callable[[NewRun], None]


def parts_of(runs: Sequence[NewRun], ids: Sequence[RunId], now: datetime, check: Check | None = None) -> Iterator[bytes]:
    """Yield *runs* under *ids* in parts, each for one `enqueue_by_copy`; delays count from *now*.

    Args:
      check: called with each run of a part first, so that this, too, is done while the server works; what it raises goes to the caller.

    Raises:
      ValueError, TypeError: an argument is no JSON.
    """
    lines: list[str] = []
    size = 0
    for run, id_ in zip(runs, ids, strict=True):
        if check:
            check(run)
        lines.append(line := _line(run, id_, now))
        size += len(line)
        if len(lines) >= _MOST or size >= _MOST_CHARACTERS:
            yield "".join(lines).encode()
            lines.clear()
            size = 0
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
