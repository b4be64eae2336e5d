"""A switch that kills what its holder may not signal, and does nothing else."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from reproq_supervisor.process.kill_switch import KillSwitch

Victim = subprocess.Popen[bytes]

_KILL_AS_SOMEBODY_ELSE = """
import os, signal, sys
from reproq_supervisor.process.identity import identity_of
from reproq_supervisor.process.kill_switch import KillSwitch

pid = int(sys.argv[1])
switch = KillSwitch(pid)
if os.geteuid() == 0:
    identity_of("nobody").become()
    try:
        os.kill(pid, signal.SIGKILL)
        sys.exit("could signal it")
    except PermissionError:
        pass
switch.kill()
"""

# Forks inherit switches; some close theirs, some leave that to their end. In the end the program leaves with switches of its own.
_NEVER_KILL = """
import os, sys
from reproq_supervisor.process.kill_switch import KillSwitch

switches = [KillSwitch(int(sys.argv[1])) for _ in range(20)]
for _ in range(20):
    child = os.fork()
    if child == 0:
        for switch in switches[:10]:
            switch.close()
        os._exit(0)
    os.waitpid(child, 0)
for switch in switches[:5]:
    switch.close()
"""


@pytest.fixture
def victim() -> Iterator[Victim]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def play(program: str, victim: Victim) -> None:
    """Run *program* in a process of its own, which then is gone; it must not fail."""
    subprocess.run([sys.executable, "-c", program, str(victim.pid)], check=True)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_kills_for_somebody_who_may_not_signal(victim: Victim, frozen: bool) -> None:
    if frozen:
        victim.send_signal(signal.SIGSTOP)
    play(_KILL_AS_SOMEBODY_ELSE, victim)
    assert victim.wait(30) == -signal.SIGKILL


def test_closing_it_and_ending_with_it_harm_nobody(victim: Victim) -> None:
    play(_NEVER_KILL, victim)
    # A signal would have been sent by the close itself, so there is nothing to wait for.
    assert victim.poll() is None
    switch = KillSwitch(victim.pid)
    switch.kill()
    assert victim.wait(30) == -signal.SIGKILL
    switch.close()


def test_a_switch_whose_process_is_gone_does_nothing(victim: Victim) -> None:
    switch = KillSwitch(victim.pid)
    victim.kill()
    victim.wait(30)
    with subprocess.Popen(["sleep", "600"]) as bystander:
        switch.kill()
        switch.close()
        assert bystander.poll() is None
        bystander.kill()


def test_there_is_none_for_a_process_that_does_not_exist(victim: Victim) -> None:
    victim.kill()
    victim.wait(30)
    with pytest.raises(ProcessLookupError):
        KillSwitch(victim.pid)
