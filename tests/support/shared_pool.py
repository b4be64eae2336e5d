"""A shard that the tests of a module share: what they leave behind in it is part of what they prove."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reproq_supervisor.store.migrate import migrate
from tests.support.postgres import Cluster
from tests.support.runs import Runs
from tests.support.shard import RunningShard, running_shard

SharedPool = tuple[RunningShard, Runs]
"""What a module's fixture `pool` yields; the fixtures `shard` and `runs` (conftest.py) are its halves."""


@contextmanager
def shared_pool(cluster: Cluster, folder: Path, **options: Any) -> Iterator[SharedPool]:
    """Run a shard on a database of its own, with log and task logs in *folder*."""
    with (
        cluster.new_database(cluster.ensure_template(migrate)) as database,
        running_shard(database, logs_dir=folder / "logs", log=folder / "shard.log", **options) as shard,
    ):
        yield shard, Runs(database)
