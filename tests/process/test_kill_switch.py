"""A switch that kills what its holder may not signal, and does nothing else."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from reproq_supervisor.process.kill_switch import KillSwitch
from tests.support.somebody import somebody_else

Victim = subprocess.Popen[bytes]


@pytest.fixture
def victim() -> Iterator[Victim]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def in_a_child(do: Callable[[], object]) -> None:
    """Run *do* in a forked process, which then is gone; it must not fail."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("frozen", [False, True])
def test_it_kills_for_somebody_who_may_not_signal(victim: Victim, frozen: bool) -> None:
    if frozen:
        victim.send_signal(signal.SIGSTOP)

    def somebody_kills() -> None:
        switch = KillSwitch(victim.pid)
        if os.geteuid() == 0:
            somebody_else().become()
            with pytest.raises(PermissionError):
                os.kill(victim.pid, signal.SIGKILL)
        switch.kill()

    in_a_child(somebody_kills)
    assert victim.wait(30) == -signal.SIGKILL


def test_closing_it_and_ending_with_it_harm_nobody(victim: Victim) -> None:
    switches = [KillSwitch(victim.pid) for _ in range(20)]

    def inherit() -> None:
        for switch in switches[:10]:
            switch.close()  # the others are closed by the exit

    for _ in range(20):
        in_a_child(inherit)
        in_a_child(lambda: KillSwitch(victim.pid))
    for switch in switches[1:]:
        switch.close()
    # A signal would have been sent by the close itself, so there is nothing to wait for.
    assert victim.poll() is None
    switches[0].kill()
    assert victim.wait(30) == -signal.SIGKILL


def test_a_switch_whose_process_is_gone_does_nothing(victim: Victim) -> None:
    switch = KillSwitch(victim.pid)
    victim.kill()
    victim.wait(30)
    switch.kill()
    switch.close()


def test_there_is_none_for_a_process_that_does_not_exist(victim: Victim) -> None:
    victim.kill()
    victim.wait(30)
    with pytest.raises(ProcessLookupError):
        KillSwitch(victim.pid)
