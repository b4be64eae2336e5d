"""The real supervisor, with programs of the tests in the place of shard, keeper and loader."""

import sys

from reproq_supervisor.core.supervision.units import Role
from reproq_supervisor.supervisor.entry import main
from reproq_supervisor.supervisor.programs import Programs

FAKES = {
    Role.SHARD: "tests.support.fake_child",
    Role.KEEPER: "tests.support.fake_child",
    Role.LOADER: "tests.support.fake_loader",
}

if __name__ == "__main__":
    sys.exit(main(programs=Programs(FAKES)))
