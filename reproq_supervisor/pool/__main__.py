"""Entry of a shard: `python -P -m reproq_supervisor.pool`, started by the supervisor with its channel at descriptor 3."""

import sys

from reproq_supervisor.process.leave_out import left_out

# 1.3 MiB: asyncio does without where it is not there, and libpq has TLS of its own.
with left_out("ssl"):
    from reproq_supervisor.pool.entry import main

if __name__ == "__main__":
    sys.exit(main())
