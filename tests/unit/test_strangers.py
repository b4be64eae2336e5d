"""What escaped from executors is killed and reaped, and nobody waits for what does not die."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from reproq_supervisor.executor.strangers import Strangers
from reproq_supervisor.process import proctable

WAIT_S = 60.0


def fork_sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A child that is no other's: the only one that the process table shows."""
    pid = fork_sleeper()
    monkeypatch.setattr(proctable, "children_of_self", lambda: [pid])
    yield pid
    for end in (lambda: os.kill(pid, signal.SIGKILL), lambda: os.waitpid(pid, 0)):
        try:
            end()
        except (ProcessLookupError, ChildProcessError):
            continue


def wait_dead(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([pidfd], [], [], WAIT_S)[0]
    finally:
        os.close(pidfd)


def test_a_stranger_is_killed_and_told_when_it_is_dead(sleeper: int) -> None:
    told: list[int] = []
    strangers = Strangers(lambda pid, command: told.append(pid))
    strangers.kill(())
    if not told:
        wait_dead(sleeper)
        strangers.look(())
    assert told == [sleeper]
    with pytest.raises(ChildProcessError):
        os.waitpid(sleeper, 0)


def test_nobody_waits_for_one_that_does_not_die(sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    strangers = Strangers(lambda pid, command: told.append(pid))
    # As if it waited for a disk: the signal is taken, and nothing follows.
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda pid, signum: None)
        for _ in range(3):
            strangers.look_soon()
            strangers.look(())
    assert told == []


def test_children_that_are_ours_are_left_alone(sleeper: int) -> None:
    strangers = Strangers(lambda pid, command: pytest.fail(f"{command} was killed"))
    strangers.kill({sleeper})
    assert os.waitpid(sleeper, os.WNOHANG) == (0, 0)
