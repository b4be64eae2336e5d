"""`process.launch` becomes another program in the right order."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reproq_supervisor.process.account import choose_account
from reproq_supervisor.process.launch import launch_argv
from tests.support.eventually import eventually

# Starts `sleep` through the launcher, says its pid, and waits to be killed.
_PARENT = """
import signal, subprocess, sys
from reproq_supervisor.process.launch import launch_argv
argv = launch_argv(["/bin/sleep", "300"], user=sys.argv[1] or None, pdeathsig=signal.SIGKILL)
print(subprocess.Popen(argv).pid, flush=True)
signal.pause()
"""


def launch(*argv: str, user: str | None = None) -> str:
    """Run *argv* to its end through the launcher and return its output."""
    command = launch_argv(argv, user=user, pdeathsig=signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_program_dies_with_its_parent_also_as_another_user() -> None:
    account = choose_account()
    parent = subprocess.Popen([sys.executable, "-P", "-c", _PARENT, account.name if account else ""], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    eventually(lambda: comm(pid) == "sleep", what="the launcher became sleep")
    parent.kill()
    parent.communicate()
    eventually(lambda: is_dead(pid), what="sleep died with its parent")


def test_a_parent_that_is_gone_already_is_noticed(tmp_path: Path) -> None:
    command = launch_argv(["/bin/touch", str(tmp_path / "started")], user=None, pdeathsig=signal.SIGTERM)
    command[command.index("--parent") + 1] = "1"
    done = subprocess.run(command, timeout=30, check=False)
    assert done.returncode in (0, -signal.SIGTERM)
    assert not (tmp_path / "started").exists()


def test_the_program_inherits_neither_descriptors_nor_ignored_signals_nor_a_folder() -> None:
    read_end, write_end = os.pipe()
    try:
        command = launch_argv(["/bin/ls", "/proc/self/fd"], user=None, pdeathsig=None)
        listing = subprocess.run(command, pass_fds=[write_end], capture_output=True, text=True, timeout=30, check=True).stdout
    finally:
        os.close(read_end)
        os.close(write_end)
    assert listing.split() == ["0", "1", "2", "3"]  # 3 is the listing itself
    ignored = launch("/bin/sh", "-c", "grep SigIgn /proc/self/status; pwd; umask").split()
    assert int(ignored[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
    assert ignored[2:] == ["/", "0077"]


def test_the_program_keeps_no_group_of_root() -> None:
    account = choose_account()
    if account is None:
        pytest.skip("only root can become somebody else")
    status = launch("/bin/cat", "/proc/self/status", user=account.name)
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(account.uid)}
    assert set(fields["Gid"].split()) == {str(account.gid)}
    assert fields["Groups"].split() == []


@pytest.mark.parametrize(("argv", "user"), [(["/no/such/program"], None), (["/bin/true"], "no-such-user")])
def test_what_cannot_be_started_is_a_permanent_error_that_says_so(argv: list[str], user: str | None) -> None:
    done = subprocess.run(launch_argv(argv, user=user, pdeathsig=None), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert argv[0] in done.stderr and "Traceback" not in done.stderr
