"""Entry of a shard: `python -P -m reproq_supervisor.pool`, started by the supervisor with its channel at descriptor 3."""

import sys

from reproq_supervisor.process.driver_imports import without_unused_imports

with without_unused_imports():
    from reproq_supervisor.pool.entry import main

if __name__ == "__main__":
    sys.exit(main())
