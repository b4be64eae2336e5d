"""The measure of memory that does not depend on who else runs."""

import os
import subprocess
import sys

import psutil

from benchmarks.measures.alone import alone_mib


def test_a_process_alone_takes_more_than_it_has_for_itself_and_at_most_what_is_resident() -> None:
    memory = psutil.Process().memory_full_info()
    assert memory.uss / 2**20 * 0.9 < alone_mib([os.getpid()]) <= psutil.Process().memory_info().rss / 2**20 * 1.1


def test_what_two_processes_share_counts_once() -> None:
    program = "import sys; sys.stdout.write('up'); sys.stdout.flush(); sys.stdin.read()"
    children = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.read(2)
        first, second, both = alone_mib([children[0].pid]), alone_mib([children[1].pid]), alone_mib([child.pid for child in children])
        assert max(first, second) < both < first + second - 1.0
    finally:
        for child in children:
            child.communicate()
