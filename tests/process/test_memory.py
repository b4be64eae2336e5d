"""Memory of a family of processes."""

import os
import subprocess
import sys

from reproq_supervisor.process.memory import family_pss_bytes, pss_bytes
from tests.support.eventually import eventually

# A child that starts one of its own; both wait for the end of their input.
_FAMILY = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stderr=subprocess.DEVNULL); sys.stdin.read()"


def test_a_process_has_a_size() -> None:
    size = pss_bytes(os.getpid())
    assert size is not None
    assert size > 2**20


def test_what_is_gone_has_none() -> None:
    with subprocess.Popen(["true"]) as done:
        done.wait()
    assert pss_bytes(done.pid) is None
    assert family_pss_bytes(done.pid) == {}


def test_a_child_counts_with_all_that_descends_from_it() -> None:
    with subprocess.Popen([sys.executable, "-c", _FAMILY], stdin=subprocess.PIPE) as child:
        eventually(lambda: family_pss_bytes(os.getpid()).get(child.pid, 0) > (pss_bytes(child.pid) or 0) + 2**20, what="two sizes in one")
        assert family_pss_bytes(os.getpid())[os.getpid()] > 2**20
        child.communicate()
