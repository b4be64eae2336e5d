"""The two large tables as the server keeps them: statistics, dead rows, room."""

from collections.abc import Iterator

from reproq_supervisor.store.examine.finding import Connection, Finding, note, one_row, warning
from reproq_supervisor.store.statements import load

ENOUGH_UPDATES = 10_000
# A lane row takes 100 to 200 bytes, its page is filled by less than half.
_LANE_ROW_BYTES = 500
_BLOAT_FACTOR = 20
_MANY_CHANGES = 1_000_000
_SMALL_BYTES = 64 * 1024 * 1024


def updates(connection: Connection) -> Iterator[Finding]:
    count, share = one_row(connection, "hot_ratio")
    if count and count > ENOUGH_UPDATES:
        yield note("updates", f"{share:.0%} of {count} updates of task_runs touched no index")


def statistics(connection: Connection) -> Iterator[Finding]:
    """Compare what changed since the record was last analysed with what it held then. Plans of our own functions do not depend on it."""
    changed, rows = one_row(connection, "changes_since_analyze")
    if changed > max(_MANY_CHANGES, 2 * rows):
        message = f"{changed} rows of task_runs have changed since it was analysed, with {rows:.0f} rows: reports may get bad plans"
        yield note("statistics", message, "ANALYZE task_runs, if autovacuum does not within minutes")


def lane(connection: Connection) -> Iterator[Finding]:
    rows, size_bytes = one_row(connection, "lane_size")
    if size_bytes > max(_SMALL_BYTES, rows * _LANE_ROW_BYTES * _BLOAT_FACTOR):
        yield warning(
            "lane",
            f"task_lane takes {size_bytes // 2**20} MiB for {rows} rows: it has grown around rows that could not be removed",
            "end what keeps a transaction open; then, in a quiet moment: VACUUM FULL task_lane",
        )


def autovacuum(connection: Connection) -> Iterator[Finding]:
    for (name,) in connection.execute(load("doctor")["without_autovacuum"]):
        yield warning(
            "autovacuum",
            f"autovacuum is off for {name}: dead rows pile up, and plans follow statistics of another day",
            "reset autovacuum_enabled of the table, or set autovacuum = on in the server's configuration",
        )
