"""Older workers beside us, and the mode that provides for them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from reproq_supervisor.store.coexistence import coexistence
from reproq_supervisor.store.examine.finding import Connection, Finding, Level

_DAY = timedelta(days=1)
# Older workers say every 30 s that they are there.
_ALIVE_S = 90.0
_OFF = "reproq-supervisor migrate --no-coexist"


def older_workers(connection: Connection) -> Iterator[Finding]:
    there = coexistence(connection, _DAY.total_seconds())
    if there.since is None:
        alive = [worker.worker_id for worker in there.older_workers if worker.seen_s_ago < _ALIVE_S]
        if alive:
            message = f"an older worker is at work ({', '.join(alive[:3])}): it does no harm, but may stand still"
            yield Finding(Level.WARNING, "co-existence", message, "stop it, or while it has to go on: reproq-supervisor migrate --coexist")
        return
    message = f"on since {there.since.isoformat(' ', 'minutes')}"
    if there.older_workers or there.held or datetime.now(UTC) - there.since < _DAY:
        seen = f"{len(there.older_workers)} older workers were seen within a day, {there.held} runs are in their hands"
        yield Finding(
            Level.NOTE, "co-existence", f"{message}: {seen}; claims and endings are dearer meanwhile", f"when they are gone: {_OFF}"
        )
    else:
        message += ", and no older worker has been seen for a day: claims and endings are dearer for nobody's sake"
        yield Finding(Level.WARNING, "co-existence", message, _OFF)
