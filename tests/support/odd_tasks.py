"""Tasks that do what the demo's do not: they mishandle descriptors, processes and signals."""

# ruff: noqa: T201 - these tasks print

import asyncio
import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path


def list_inheritable_descriptors() -> list[int]:
    """Return the descriptors that a program started from here would be given."""
    return sorted(fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.lexists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd))


_calls: list[None] = []


def count_calls() -> tuple[int, int]:
    """Return the pid, and how often it was called in this process."""
    _calls.append(None)
    return os.getpid(), len(_calls)


def print_only(text: str) -> str:
    """Print *text* from Python alone."""
    print(text)
    return text


def print_from_a_program(text: str) -> None:
    """Have a program print *text*."""
    subprocess.run(["echo", text], check=True)


def print_and_fail(text: str) -> None:
    """Print *text*, then raise."""
    print(text)
    raise RuntimeError(text)


def print_and_crash(text: str) -> None:
    """Print *text*, then end the executor."""
    print(text)
    os._exit(3)


def print_and_hang(text: str) -> None:
    """Print *text*, then sleep."""
    print(text)
    time.sleep(3600)


def print_around(text: str, go: str, done: str, wait_s: float) -> None:
    """Print *text*, let somebody go on, wait until he is done or *wait_s* are over, and print it again."""
    print(text)
    Path(go).touch()
    end = time.monotonic() + wait_s
    while not Path(done).exists() and time.monotonic() < end:
        time.sleep(0.01)
    print(text)


def write_from_c(text: str) -> None:
    """Write to standard output and standard error below Python."""
    libc = ctypes.CDLL(None)
    line = f"{text}\n".encode()
    libc.write(1, line, len(line))
    libc.write(2, line, len(line))


def close_stdout(text: str) -> None:
    """Print, then close Python's standard output."""
    print(text)
    sys.stdout.close()


def replace_stdout() -> None:
    """Leave another object as standard output behind."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def drop_stdout() -> None:
    """Leave no standard output at all."""
    sys.stdout = None  # type: ignore[assignment]


def close_standard_descriptors() -> str:
    """Close descriptors 1 and 2."""
    os.close(1)
    os.close(2)
    return "closed"


def redirect_standard_descriptors(path: str, text: str) -> str:
    """Print, then lead descriptors 1 and 2 to a file and leave them there."""
    print(text, flush=True)
    with open(path, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return "redirected"


def leave_writer(text: str, go: str, *, first: str = "", double_fork: bool = False) -> int:
    """Leave a program behind that prints *text* once the file *go* exists; return its pid, or that of its dead parent."""
    if first:
        print(first, flush=True)
    script = f"while [ ! -e {go} ]; do sleep 0.02; done; echo {text}; touch {go}.done; exec sleep 3600"
    if double_fork:
        return subprocess.run(["sh", "-c", f"({script}) &"], check=True, start_new_session=True).returncode
    return subprocess.Popen(["sh", "-c", script], start_new_session=True).pid


def fork_and_return() -> str:
    """Fork, and come back from the task in both processes."""
    return "child" if os.fork() == 0 else "parent"


def fork_and_exit() -> str:
    """Fork, and leave the child by `sys.exit`, as an old-style daemon does."""
    if os.fork() == 0:
        sys.exit(0)
    return "parent"


def fork_and_fail() -> str:
    """Fork, and leave the child by an error."""
    if os.fork() == 0:
        raise RuntimeError("child")
    return "parent"


def descriptors_of_a_program() -> list[str]:
    """Return the descriptors that a program has which was started without care."""
    listed = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, stdout=subprocess.PIPE, text=True, check=True)
    return listed.stdout.split()


def draw_and_end() -> None:
    """Print a random number and end the executor, so that the next draw is in a new one."""
    print(random.random(), flush=True)
    os._exit(1)


def write_rubbish_to_sockets() -> None:
    """Write bytes that are no frame to every socket that is open."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), b"\xff" * 64)
        except OSError:
            continue
    time.sleep(3600)


def leave_family(seconds: float = 3600) -> None:
    """Leave three sleepers behind: in our group, in a session of its own, and double-forked; then stay busy."""
    subprocess.Popen(["sleep", str(seconds)])
    subprocess.Popen(["sleep", str(seconds)], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(seconds)
        os._exit(0)
    time.sleep(seconds)


def clean_up_when_asked(marker: str, seconds: float = 3600) -> None:
    """Sleep; asked to stop, leave the file *marker* and go."""
    try:
        time.sleep(seconds)
    except BaseException as error:
        Path(marker).write_text(type(error).__name__)
        raise


def say_ready_and_clean_up(ready: str, marker: str) -> None:
    """Leave the file *ready* and sleep; asked to stop, leave the file *marker* and go."""
    try:
        Path(ready).touch()
        time.sleep(3600)
    except BaseException as error:
        Path(marker).write_text(type(error).__name__)
        raise


async def sleep_in_coroutine(marker: str, seconds: float = 3600) -> None:
    """Sleep in a coroutine; asked to stop, leave the file *marker* and go."""
    try:
        await asyncio.sleep(seconds)
    except BaseException as error:
        Path(marker).write_text(type(error).__name__)
        raise


async def sleep_beside_a_busy_task(seconds: float = 3600) -> None:
    """Wait in a coroutine while another of the same loop is the one that runs."""

    async def tick() -> None:
        while True:
            end = time.monotonic() + 0.005
            while time.monotonic() < end:
                pass
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(seconds)
    ticking.cancel()


def hang_in_c() -> int:
    """Keep busy in C, where no Python signal handler runs."""
    return sum(range(10**15))


def hang_with_signals_masked(seconds: float = 3600) -> None:
    """Sleep with every signal held back."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(seconds)


def kill_parent(path: str, signum: int) -> None:
    """Tell in a file that it began, and send a signal to the parent of its process, which is the nursery."""
    with open(path, "a") as file:
        file.write("began\n")
    os.kill(os.getppid(), signum)
    time.sleep(3600)


def stop_itself(pid_file: str = "") -> str:
    """Freeze the own process, whose number is in *pid_file* then."""
    if pid_file:
        Path(pid_file).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)
    return "continued"


def close_every_descriptor() -> None:
    """Close all descriptors that the executor has, its socket included."""
    os.closerange(3, 256)


def length(text: str) -> int:
    """Return how long *text* is."""
    return len(text)


def length_after(text: str, seconds: float) -> int:
    """Return how long *text* is, after a while."""
    time.sleep(seconds)
    return len(text)


def give_back(text: str) -> str:
    """Return *text*."""
    return text


def tick(path: str, seconds: float, until: str = "") -> int:
    """Append pid and boot time to a file every few milliseconds: signs of life; for *seconds*, or until the file *until* exists."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    end = time.monotonic() + seconds
    count = 0
    while True:
        os.write(fd, f"{os.getpid()} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n".encode())
        count += 1
        if time.monotonic() >= end or (until and os.path.exists(until)):
            os.close(fd)
            return count
        time.sleep(0.005)


def nested(depth: int) -> list[object]:
    """Return a list nested *depth* times."""
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def big_number(digits: int) -> int:
    """Return a number of so many digits."""
    return int(10**digits)


def half_surrogate() -> str:
    """Return text that is not Unicode."""
    return "\ud800"


def raise_without_words() -> None:
    """Raise an error whose text cannot be made."""

    class Wordless(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    raise Wordless


def interrupt() -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


class _Holder:
    """A task object of another framework: the callable is `func` or `run`."""

    def func(self, value: int) -> int:
        return value + 1


held = _Holder()


class _Runner:
    def run(self, value: int) -> int:
        return value + 2


runner = _Runner()

not_callable = 5
imported_run = subprocess.run


def open_many(count: int) -> int:
    """Open *count* descriptors; close them again."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for fd in opened:
            os.close(fd)
    return len(opened)


def regain_rights() -> list[str]:
    """Try to undo what the pool's settings did to this process; return what worked."""
    worked = []
    for name, attempt in {
        "user": lambda: os.setuid(0),
        "groups": lambda: os.setgroups([0]),
        "limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
        "nice": lambda: os.nice(-1),
    }.items():
        try:
            attempt()
            worked.append(name)
        except (OSError, ValueError):
            continue
    return worked
