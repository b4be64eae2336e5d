"""Entry of the keeper: `python -P -m reproq_supervisor.keeper`, started by the supervisor with its channel at descriptor 3."""

import sys

from reproq_supervisor.process.driver_imports import without_unused_imports

with without_unused_imports():
    from reproq_supervisor.keeper.entry import main

if __name__ == "__main__":
    sys.exit(main())
