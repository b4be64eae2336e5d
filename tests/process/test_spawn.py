"""What a child is started with."""

import os
import sys

from reproq_supervisor.process.spawn import spawn_child

_LIST = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"


def test_a_child_has_its_standard_streams_and_its_channel_whatever_we_were_started_with() -> None:
    read, write = os.pipe()
    ours = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    for fd in ours:
        os.set_inheritable(fd, True)
    child = spawn_child([sys.executable, "-c", _LIST], os.environ, stdout=write)
    os.close(write)
    with os.fdopen(read) as words:
        listed = words.read()
    os.waitpid(child.pid, 0)
    os.close(child.pidfd)
    child.channel.close()
    for fd in ours:
        os.close(fd)
    # 4 is the listing's own.
    assert listed == "[0, 1, 2, 3, 4]\n"
