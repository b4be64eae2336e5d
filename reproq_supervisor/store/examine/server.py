"""The server, and who is connected to it: checks that need no schema."""

import time
from collections.abc import Iterator

from reproq_supervisor.store.examine.finding import Connection, Finding, error, note, one_row, warning
from reproq_supervisor.store.statements import load

OLDEST_SERVER = 150000
LONG_TRANSACTION_S = 300.0
_SKEW_S = 5.0


def server(connection: Connection) -> Iterator[Finding]:
    version, encoding, is_standby = one_row(connection, "server")
    if version < OLDEST_SERVER:
        yield error("server", f"PostgreSQL: expected 15 or later, got {version // 10000}", "upgrade the server")
    if encoding != "UTF8":
        yield error("server", f"encoding: expected UTF8, got {encoding}", "create the database with ENCODING 'UTF8'")
    if is_standby:
        yield error("server", "expected a primary, got a standby, which cannot be written to", "use the primary's address")


def clocks(connection: Connection) -> Iterator[Finding]:
    """Compare the clocks of this host and of the database. Leases and due times are the database's: only people get confused."""
    before = time.time()
    (there,) = one_row(connection, "clock")
    after = time.time()
    skew_s = there - before if there < before else max(0.0, there - after)
    if abs(skew_s) > _SKEW_S:
        direction = "ahead of" if skew_s > 0 else "behind"
        message = f"the clock of the database is {abs(skew_s):.0f} s {direction} this host's; due times and leases follow the database's"
        yield warning("clocks", message, "run a time service (NTP) on both")


def transactions(connection: Connection) -> Iterator[Finding]:
    """Find what keeps dead rows from being removed: claims grow slower by and by."""
    for pid, name, state, open_s in connection.execute(load("doctor")["open_transactions"], {"longer_than_s": LONG_TRANSACTION_S}):
        yield warning(
            "transactions",
            f"pid {pid} ({name or 'no name'}, {state}) has had a transaction open for {open_s:.0f} s; no dead row is removed meanwhile, "
            "and claims grow slower",
            f"end it where it was begun, or: SELECT pg_terminate_backend({pid})",
        )
    for gid, prepared_s in connection.execute(load("doctor")["prepared_transactions"], {"longer_than_s": LONG_TRANSACTION_S}):
        yield warning(
            "prepared transactions",
            f"{gid} was prepared {prepared_s:.0f} s ago and neither committed nor rolled back; no dead row is removed meanwhile",
            f"COMMIT PREPARED or ROLLBACK PREPARED '{gid}'",
        )


def rights(connection: Connection) -> Iterator[Finding]:
    """Find what the role of this connection may not do, though daemon and commands have to."""
    for kind, name, right in connection.execute(load("doctor")["missing_rights"]):
        yield error("rights", f"the role may not {right} {name}", f"GRANT {right} ON {kind} {name} TO the role")
    (is_superuser,) = one_row(connection, "superuser")
    if is_superuser:
        yield note("rights", "the role is a superuser: one that owns its schema is enough")
