"""One task per behaviour: what a supervisor must be able to live with.

Every one is an ordinary function; nothing here knows how it is run.
"""

import asyncio
import ctypes
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any


def noop() -> None:
    """Do nothing: what remains is the cost of the machinery."""


def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return what was given."""
    return {"args": list(args), "kwargs": kwargs}


def tell_time() -> float:
    """Return when it runs, in seconds since 1970 by this host's clock."""
    return time.time()


def add(a: float, b: float) -> float:
    """Return a + b."""
    return a + b


def nap(seconds: float) -> float:
    """Sleep, and return for how long."""
    time.sleep(seconds)
    return seconds


def burn(seconds: float) -> int:
    """Keep a processor busy; return how many rounds it took."""
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end:
        hashlib.sha256(b"x" * 4096).digest()
        rounds += 1
    return rounds


async def coroutine_nap(seconds: float) -> float:
    """Sleep in a coroutine, and return for how long."""
    await asyncio.sleep(seconds)
    return seconds


async def coroutine_echo(value: Any) -> Any:
    """Return what was given, from a coroutine."""
    return value


def fail(message: str = "this task fails on purpose") -> None:
    """Raise an ordinary error."""
    raise RuntimeError(message)


def fail_until(attempt_marker: str, times: int) -> int:
    """Fail until the file *attempt_marker* has seen *times* attempts; return the number of the one that succeeded."""
    with open(attempt_marker, "a", encoding="utf-8") as file:
        file.write("x")
        file.flush()
        seen = file.tell()
    if seen <= times:
        raise RuntimeError(f"attempt {seen} of {times + 1} fails on purpose")
    return seen


def exit_process(code: int = 3) -> None:
    """Call `sys.exit`, which must not end the executor."""
    sys.exit(code)


def crash(code: int = 9) -> None:
    """End the executor in the middle of the task, without a word."""
    os._exit(code)


def kill_itself(signum: int = signal.SIGKILL) -> None:
    """Die by a signal, as the kernel's memory killer would do it."""
    os.kill(os.getpid(), signum)
    time.sleep(60)


def tell_conditions() -> dict[str, Any]:
    """Return what the pool's settings made of this process: niceness, processors, limits, umask, who it is."""
    umask = os.umask(0)
    os.umask(umask)
    kinds = {"address_space": "AS", "data": "DATA", "open_files": "NOFILE", "processes": "NPROC", "core": "CORE", "cpu_time": "CPU"}
    return {
        "nice": os.nice(0),
        "cpus": sorted(os.sched_getaffinity(0)),
        "limits": {name: list(resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))) for name, kind in kinds.items()},
        "umask": umask,
        "users": list(os.getresuid()),
        "groups": [list(os.getresgid()), sorted(os.getgroups())],
        "variables": {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")},
    }


def dereference_null() -> None:
    """Crash in C, as a broken extension does: SIGSEGV."""
    ctypes.string_at(0)


_LEAKED: list[bytearray] = []


def leak(megabytes: int = 8) -> int:
    """Keep memory for ever; return the megabytes that this process has leaked so far."""
    _LEAKED.append(_touched(megabytes))
    return sum(map(len, _LEAKED)) >> 20


def hold(megabytes: int = 64, seconds: float = 1.0) -> int:
    """Take memory, hold it for a while and give it back; return how much it was."""
    held = _touched(megabytes)
    time.sleep(seconds)
    return len(held) >> 20


def _touched(megabytes: int) -> bytearray:
    # Zeroes would be promised by the kernel only; these are written.
    return bytearray(b"x" * 4096) * (megabytes << 8)


def print_progress(steps: int = 10, seconds: float = 1.0) -> int:
    """Say how far it is after every step; return the number of steps."""
    for step in range(1, steps + 1):
        time.sleep(seconds / steps)
        print(f"step {step} of {steps}", flush=True)
    return steps


def flood(megabytes: int = 8, stream: str = "stdout") -> int:
    """Write much more than is kept; return the bytes written."""
    line = b"flood " * 170 + b"\n"
    target = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
    written = 0
    while written < megabytes * 1024 * 1024:
        target.write(line)
        written += len(line)
    return written


def say(text: str, error_text: str = "") -> None:
    """Write to standard output and standard error: from Python, and from a program."""
    print(text)
    if error_text:
        print(error_text, file=sys.stderr)
    subprocess.run(["echo", f"{text} (from a program)"], check=True)


def hang(seconds: float = 3600) -> None:
    """Sleep past any time limit, and leave when asked to."""
    time.sleep(seconds)


def hang_stubbornly(seconds: float = 3600) -> None:
    """Sleep past any time limit, and refuse to leave when asked to: only the hard kill helps."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(seconds)
        except BaseException:  # boundary: the point of this task is to ignore every signal to stop
            continue


def leave_grandchild(seconds: float = 3600) -> int:
    """Leave a process behind that escaped into a session of its own; return its pid."""
    child = subprocess.Popen(["sleep", str(seconds)], start_new_session=True, stdin=subprocess.DEVNULL)
    return child.pid


def return_nan() -> float:
    """Return what JSON cannot say."""
    return float("nan")


def return_nul() -> str:
    """Return text that PostgreSQL cannot store."""
    return "before\0after"


def return_large(size: int = 2 * 1024 * 1024) -> str:
    """Return more than a result may hold."""
    return "x" * size


def return_object() -> object:
    """Return something that is no JSON at all."""
    return object()


def record(path: str, line: str) -> None:
    """Append one line to a file in one write: how tests learn what ran, how often and where."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def record_interval(path: str, name: str, seconds: float) -> None:
    """Append start and end of this execution, with the pid, to a file."""
    record(path, f"{name} start {os.getpid()} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}")
    time.sleep(seconds)
    record(path, f"{name} end {os.getpid()} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}")


def leave_trail(path: str, name: str, seconds: float, step: float = 0.005) -> str:
    """Run for *seconds* and leave a line in *path* at the start, every *step* seconds and at the end; return who it was.

    A line is `name execution what boot-time`; whoever reads the file can tell how often a task ran and whether two executions overlapped.
    """
    execution = f"{os.getpid()}-{time.monotonic_ns()}"
    for wait_s in _trail(path, name, execution, seconds, step):
        time.sleep(wait_s)
    return execution


async def leave_trail_in_coroutine(path: str, name: str, seconds: float, step: float = 0.005) -> str:
    """Do the same in a coroutine."""
    execution = f"{os.getpid()}-{time.monotonic_ns()}"
    for wait_s in _trail(path, name, execution, seconds, step):
        await asyncio.sleep(wait_s)
    return execution


def _trail(path: str, name: str, execution: str, seconds: float, step: float) -> Iterator[float]:
    """Leave the trail, yielding the seconds to wait between two lines."""
    end = time.monotonic() + seconds
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        what = "start"
        while True:
            os.write(fd, f"{name} {execution} {what} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n".encode())
            if what == "end":
                return
            yield max(0.0, min(step, end - time.monotonic()))
            what = "end" if time.monotonic() >= end else "on"
    finally:
        os.close(fd)
