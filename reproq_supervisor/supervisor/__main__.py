"""Entry of the supervisor: `python -P -m reproq_supervisor.supervisor --settings-fd N`, what `run` turns into."""

import sys

from reproq_supervisor.process.postpone import postponed

# 1.1 MiB with `ast` and `dis`: the dataclasses of Python 3.11 ask it only for those without a docstring, later ones always.
with postponed("inspect"):
    from reproq_supervisor.supervisor.entry import main

if __name__ == "__main__":
    sys.exit(main())
