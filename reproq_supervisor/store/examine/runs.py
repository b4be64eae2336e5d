"""The runs: what is not as it should be, or waits for nobody."""

from collections.abc import Iterator

from reproq_supervisor.store.examine.finding import Connection, Finding, error, note, ok, one_row, warning
from reproq_supervisor.store.statements import load

NEWEST_CHECKED = 1_000_000
_OVERDUE_S = 60.0


def invariant(connection: Connection) -> Iterator[Finding]:
    faults = connection.execute(load("doctor")["invariant"], {"newest": NEWEST_CHECKED}).fetchall()
    for fault, count in faults:
        yield error("invariant", f"{count} runs: {fault}", "restart the keeper: it repairs this when it starts")
    if not faults:
        yield ok("invariant", "every run that has not ended has its lane row, and no other has")


def statuses(connection: Connection) -> Iterator[Finding]:
    """Find words that no version of the contract knows: neither claimed nor counted as ended."""
    for status, count in connection.execute(load("doctor")["unknown_statuses"], {"newest": NEWEST_CHECKED}):
        yield error(
            "statuses",
            f"{count} runs have the unknown status {status!r}: nobody will ever run or prune them",
            "set it to READY to run them, or to CANCELLED",
        )


def expired(connection: Connection) -> Iterator[Finding]:
    count, oldest_s = one_row(connection, "expired_leases", overdue_s=_OVERDUE_S)
    if count:
        yield warning(
            "leases",
            f"{count} leases expired, the first {oldest_s:.0f} s ago, and nobody takes them back",
            "start a daemon: its keeper does",
        )


def unsettled(connection: Connection) -> Iterator[Finding]:
    """Find ends of runs in workflows that nobody has settled."""
    (count,) = one_row(connection, "unsettled", older_s=_OVERDUE_S)
    if count:
        yield warning(
            "workflows",
            f"{count} runs wait for a parent or for members that have ended",
            "start a daemon: its keeper looks every half minute",
        )


def parentless(connection: Connection) -> Iterator[Finding]:
    """Find runs that say they wait, and for nothing: no end of another run will ever wake them."""
    (count,) = one_row(connection, "parentless", older_s=_OVERDUE_S)
    if count:
        yield warning(
            "workflows",
            f"{count} runs are WAITING without a parent and without a workflow: nobody will ever wake them",
            "set them to READY to run them, or cancel them; whoever enqueues them should say parent_id or workflow_id",
        )


def shared_queues(connection: Connection) -> Iterator[Finding]:
    """Find queues that several backends put tasks into: whoever serves the queue runs them all."""
    for queue, backends in connection.execute(load("doctor")["shared_queues"], {"newest": NEWEST_CHECKED}):
        yield note(
            "queues",
            f"queue {queue} holds tasks of the backends {', '.join(backends)}: every pool that serves it runs all of them",
            "give each backend queues of its own where that is not meant",
        )


def overdue(connection: Connection) -> Iterator[Finding]:
    """Find runs whose time has come and that nobody wakes."""
    count, oldest_s = one_row(connection, "overdue_runs", overdue_s=_OVERDUE_S)
    if count:
        yield warning(
            "due runs",
            f"{count} runs have been due for up to {oldest_s:.0f} s and still sleep",
            "start a daemon: its keeper wakes",
        )


def workers(connection: Connection) -> Iterator[Finding]:
    (count,) = one_row(connection, "stale_workers")
    if count:
        yield note(
            "workers",
            f"{count} workers have not been seen for a day: entries of an older product, or of a lost host",
            "a keeper removes them",
        )
