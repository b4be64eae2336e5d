"""Somebody else to run a pool as, where there is one."""

import os
import subprocess
import sys
from functools import cache

from reproq_supervisor.process.identity import Identity, identity_of
from tests.support.shard import ROOT

NAME = "nobody"


@cache
def why_nobody_else() -> str | None:
    """Return why no test here can be somebody else, None when it can: it must be root, and Python and checkout open to others."""
    if os.geteuid() != 0:
        return "only root may become somebody else"
    nobody = identity_of(NAME)
    argv = [sys.executable, "-c", "import reproq_supervisor, workers.demo.tasks"]
    try:
        done = subprocess.run(
            argv, cwd="/", env={"PYTHONPATH": str(ROOT)}, user=nobody.uid, group=nobody.gid, check=False, capture_output=True
        )
    except PermissionError as error:
        return f"closed to {NAME}: {error.filename}"
    return f"closed to {NAME}: {sys.prefix}, {ROOT} or what is below them" if done.returncode else None


def somebody_else() -> Identity:
    """Return who it is; ask `why_nobody_else` before."""
    return identity_of(NAME)
